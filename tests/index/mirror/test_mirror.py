"""An index in a vault: what holds in a folder holds in a bucket, from any machine.

A machine is a cache folder of its own: with another one nothing is known but what the vault has.
Not here: kills (test_kills.py), the contract of a vault (tests/vault/test_contract.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from embedcli.config import Options, index_folder
from embedcli.errors import Locked, NoIndex, StorageError
from embedcli.index.change_lists import trail
from embedcli.index.generations import Index
from embedcli.index.mirror.mirror import Mirror
from embedcli.index.mirror.place import first_hand, open_index
from embedcli.index.mirror.pointer import Pointer
from embedcli.ingest import ingest
from embedcli.run.tools import Tools
from embedcli.search.complete import complete
from embedcli.vault.contract import Vault
from embedcli.vault.lease import Lease
from embedcli.vault.opened import open_vault
from embedcli.vault.stubs import fetched, is_stub
from embedcli.verbs.edits.forget import forget
from embedcli.verbs.edits.moved import moved
from embedcli.verbs.edits.rollback import rollback
from embedcli.verbs.edits.unlock import unlock
from embedcli.verbs.shards import shards
from embedcli.verbs.status import status
from embedcli.verbs.verify import verify
from tests.fake_engines import EngineHoldsBack
from tests.s3 import S3, Proxy, nobody_listens, proxied
from tests.workshop import UNFINISHED, Lines, ReadsHere, Workshop, _resolve, stopped_half_way, wide_engine, words

HOURS = 3600.0


def silent(_: str) -> None:
    return


class Machine(Workshop):
    """A workshop whose index is in a vault. `docs` is shared by all machines, as a network filesystem is."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        super().__init__(folder)
        self.url = url
        self.index = index_folder(url, {"EMBEDCLI_CACHE": str(folder / name)})

    @property
    def vault(self) -> Vault:
        return open_vault(self.url)

    def opened(self) -> Index:
        return open_index(self.index)

    def pointer(self) -> Pointer:
        return Pointer.loads(self.vault.read("current.json")[0])

    def stored(self, room: str = "") -> set[str]:
        return {item.key for item in self.vault.list(room)}

    def table(self) -> pa.Table:
        """Read from the vault itself, by the list of its shards."""
        keys = [uri.removeprefix(f"{self.url}/") for uri in shards(self.opened()).shards]
        table = pa.concat_tables(pq.read_table(pa.BufferReader(self.vault.read(key)[0])) for key in keys)
        return table.sort_by([("path", "ascending"), ("chunk_index", "ascending")])

    def verified(self) -> list[Any]:
        with first_hand(self.opened()) as index:
            return verify(index).damage

    def fetched(self) -> set[str]:
        """The shards of the current generation whose content is on this machine."""
        current = self.opened().current()
        assert current is not None
        return {shard.name for shard in current.shards.values() if not is_stub(shard.path)}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'vault'}"


@pytest.fixture
def one(tmp_path: Path, url: str) -> Machine:
    return Machine(tmp_path, "one", url)


@pytest.fixture
def two(tmp_path: Path, url: str) -> Machine:
    return Machine(tmp_path, "two", url)


def test_a_bucket_holds_what_a_folder_holds(s3: S3, tmp_path: Path) -> None:
    url = f"{s3.bucket()}/a/deep prefix"
    one, two = Machine(tmp_path, "one", url), Machine(tmp_path, "two", url)
    folder = Workshop(tmp_path)
    for number in range(6):
        one.write(f"{number}.txt", words(80, number))
    assert one.ingest().generation == 1 and folder.ingest().generation == 1
    assert two.content() == folder.content() and two.verified() == []
    one.write("2.txt", words(70, 99))
    (one.docs / "3.txt").unlink()
    assert two.ingest().generation == 2 and folder.ingest().generation == 2
    assert one.content() == two.content() == folder.content() and one.verified() == []
    assert two.embedded < one.embedded / 2, "the vectors of the other machine are reused"


def test_the_files_of_the_list_are_read_by_other_programs(s3: S3, tmp_path: Path) -> None:
    one = Machine(tmp_path, "one", f"{s3.bucket()}/idx")
    one.write("a.txt", words(200))
    one.ingest()
    listed = shards(one.opened())
    assert listed.index == one.url and all(uri.startswith(f"{one.url}/vectors/part-") for uri in listed.shards)
    filesystem = pyarrow.fs.S3FileSystem(endpoint_override=s3.endpoint, access_key="test", secret_key="test")
    table = ds.dataset([uri.removeprefix("s3://") for uri in listed.shards], filesystem=filesystem).to_table()
    assert set(table.column("chunk_id").to_pylist()) == one.ids()


def test_a_folder_lists_the_absolute_paths_of_its_current_generation(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.write("a.txt", words(200))
    shop.ingest()
    (path,) = shards(open_index(shop.index)).shards
    assert Path(path).is_absolute() and "generations/000001/vectors/part-" in path
    assert pq.read_table(path).num_rows == len(shop.rows())


def test_verbs_of_one_machine_are_seen_by_the_others(one: Machine, two: Machine, tmp_path: Path) -> None:
    for name in ("a/1.txt", "a/2.txt", "b/3.txt"):
        one.write(name, words(60, len(name)))
    one.ingest()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(one.docs / "b", elsewhere)
    moved(two.opened(), str(one.docs / "b"), str(elsewhere), warn=silent)
    assert {row["uri"] for row in one.rows()} >= {str(elsewhere / "3.txt")}
    forget(one.opened(), str(elsewhere), warn=silent)
    assert {row["path"] for row in two.rows()} == {"a/1.txt", "a/2.txt"}
    done = rollback(two.opened(), to=1, warn=silent)
    assert (done.generation, done.before) == (1, 3) and one.opened().current_number() == 1
    assert one.pointer().generations[3].retired_at is not None
    assert {row["path"] for row in one.rows()} == {"a/1.txt", "a/2.txt", "b/3.txt"}
    assert [run["verb"] for run in status(one.opened()).runs[:3]] == ["rollback", "forget", "moved"]
    assert one.verified() == []
    one.write("a/4.txt", words(60, 4))
    assert two.ingest().generation == 5, "a rollback has a number of its own, and no number is used twice"


def test_a_new_machine_knows_what_runs_have_seen(one: Machine, two: Machine) -> None:
    one.write("a.txt", words(60))
    one.write("empty.txt", "")
    one.ingest()
    one.age(one.docs / "a.txt", 50)  # another stat of the same content: no new generation
    assert one.ingest().generation == 1
    assert "state/seen.parquet" in one.stored("state")
    assert two.ingest().sources["unchanged"] == 2
    assert (two.index / "state/seen.parquet").read_bytes() == (one.index / "state/seen.parquet").read_bytes()


def test_a_first_run_that_was_stopped_is_continued_elsewhere_without_its_flags(one: Machine, two: Machine) -> None:
    for number in range(5):
        one.write(f"{number}.txt", words(60, number))
    one.write("last.txt", UNFINISHED)
    stopped_half_way(one)
    tools = Tools(
        _resolve, lambda _: "cpu", lambda model, settings, device: wide_engine(model, settings.dim, device, two.log),
        make_pool=ReadsHere,
    )  # fmt: skip
    summary = ingest(Options(index=two.index), tools=tools, report=Lines())
    assert (summary.generation, summary.sources["new"]) == (1, 6)
    assert len({row["path"] for row in two.rows()}) == 6 and two.embedded < one.embedded + 6
    assert one.verified() == [] and not one.stored("staging")


# ---- what a night costs


def full_shards(machine: Machine, nights: int) -> None:
    """A few shards, each of a night of its own."""
    for night in range(nights):
        machine.write(f"{night}/long.txt", words(12_000, night))
        machine.ingest(**({} if night else {"dim": 64}))


def test_a_night_on_a_new_machine_fetches_and_stores_what_changed(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(s3)
    with proxied(proxy) as counted:
        monkeypatch.setenv("AWS_ENDPOINT_URL", counted.endpoint)
        url = f"{s3.bucket()}/idx"
        one, two = Machine(tmp_path, "one", url), Machine(tmp_path, "two", url)
        full_shards(one, 3)
        whole = sum(item.size_bytes for item in one.vault.list("vectors"))
        one.write("new.txt", words(100, 77))
        proxy.sent_bytes = proxy.got_bytes = 0
        assert two.ingest(dim=64).generation == 4
        assert len(two.fetched()) == 1, "only the shard that it has made is on the new machine"
        print(f"index {whole:,} bytes: a night fetched {proxy.got_bytes:,} and stored {proxy.sent_bytes:,}")
        assert proxy.got_bytes < whole / 3 and proxy.sent_bytes < whole / 20
        assert two.verified() == [] and len(two.rows()) == len(one.rows())
        proxy.sent_bytes = proxy.got_bytes = 0
        before = two.stored() - two.stored("state")
        assert two.ingest().idle
        assert proxy.sent_bytes < 4_000 and two.stored() - two.stored("state") == before, "a beat, a line of history"


def name_a_folder_of_another_machine(machine: Machine) -> None:
    """As if generation 1 had been made where the model lies in a folder that is not here."""
    pointer, version = machine.pointer(), machine.vault.read("current.json")[1]
    key = f"{pointer.generations[1].folder}/manifest.json"
    manifest = json.loads(machine.vault.read(key)[0])
    manifest["query"]["folder"] = "/home/elsewhere/minilm"
    content = json.dumps(manifest, indent=1).encode()
    machine.vault.remove([key])
    machine.vault.put_new(key, content)
    place = dataclasses.replace(pointer.generations[1], manifest_sha256=hashlib.sha256(content).hexdigest())
    machine.vault.swap("current.json", version, dataclasses.replace(pointer, generations={1: place}).dumps())


def test_nights_where_the_model_lies_in_another_folder_keep_what_was_fetched(one: Machine, two: Machine) -> None:
    one.write("long.txt", words(2_000))
    one.ingest()
    name_a_folder_of_another_machine(one)
    assert two.ingest().sources["unchanged"] == 1
    for path in (two.index / "current/vectors").iterdir():
        fetched(path)
    kept = two.fetched()
    assert kept and two.ingest().sources["unchanged"] == 1
    assert two.fetched() == kept
    assert not any("/home/elsewhere" in line for line in two.report.said)


def test_a_machine_keeps_no_more_of_the_history_than_the_vault(one: Machine) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    lines = one.index / "state" / "runs"
    for number in range(300):
        (lines / f"{number:020d}-0.json").write_text("{}\n")
    one.ingest()
    assert {path.name for path in lines.iterdir()} <= {Path(key).name for key in one.stored("state/runs")}
    assert len(status(one.opened()).runs) == 2


def test_a_machine_that_only_reads_forgets_the_change_lists_that_the_vault_has_removed(
    one: Machine, two: Machine
) -> None:
    for night in range(4):
        one.write(f"{night}.txt", words(60, night))
        one.ingest()
        two.opened()
    oldest = one.pointer().changes[1]
    os.utime(one.index / "changes/000001.parquet", (0, 0))  # as if 90 days had passed
    one.write("more.txt", words(60, 9))
    one.ingest()
    one.vault.remove([oldest])  # as the collector does an hour later
    assert [item.number for item in trail(one.opened()).lists] == [5, 4, 3, 2]
    assert [item.number for item in trail(two.opened()).lists] == [5, 4, 3, 2]


def test_a_run_whose_time_was_over_leaves_what_is_not_published_and_no_more(one: Machine) -> None:
    """It is over when some documents are in a shard, and of the long one all vectors are there but one."""
    for number in range(3):
        one.write(f"{number}.txt", words(60, number))
    one.write("long.txt", f"{words(800, 9)}\n{UNFINISHED}")

    def seconds_left() -> float:
        kinds = {path.name[:5] for path in one.index.glob("staging/*/*.*")}
        return 0.0 if {"part-", "loose"} <= kinds else HOURS

    def open_engine(_: object, settings: Any, __: str) -> EngineHoldsBack:
        return EngineHoldsBack(dim=settings.dim, log=one.log)

    assert not one.ingest(open_engine=open_engine, checkpoint_every_s=0.0, seconds_left=seconds_left).complete
    left = {key.split("/")[2] for key in one.stored("staging")}
    assert left == {path.name for path in one.index.glob("staging/*/*")} and any("loose" in name for name in left)
    assert one.ingest().complete and not one.stored("staging")


def test_a_search_fetches_each_shard_once(one: Machine, two: Machine) -> None:
    from embedcli.search.searcher import Searcher

    full_shards(one, 2)
    searcher = Searcher(two.opened(), vectors=None)  # type: ignore[arg-type]
    word = words(12_000, 1).split()[7]
    assert searcher.search(word, mode="words").hits
    assert len(two.fetched()) == 2
    shutil.move(two.url.removeprefix("file://") + "/vectors", two.index.parent / "away")
    assert Searcher(two.opened(), vectors=None).search(word, mode="words").hits  # type: ignore[arg-type]


# ---- writers


def test_a_second_run_on_another_machine_is_told_who_works(one: Machine, two: Machine) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    index = two.opened()
    with Lease(one.vault, "the other", warn=silent, lease_s=1.0):
        with pytest.raises(Locked, match="is locked by another run: pid") as refused:
            one.ingest(disk=Mirror(one.index, one.vault, lease_s=60.0))
        assert refused.value.exit_code == 11
        running = status(index).running
        assert running is not None and running["pid"] == os.getpid() and running["alive"] is None
    assert status(index).running is None and one.ingest().exit_code == 0


class OtherMachinePublishes(Mirror):
    """At a step before the swap the run is suspended past its lease, and another machine publishes."""

    def __init__(self, machine: Machine, meanwhile: Callable[[], None], *, at: str = "before swap") -> None:
        super().__init__(machine.index, machine.vault, lease_s=1e6)  # a suspended run gives no sign of life
        self.meanwhile = meanwhile
        self.at = at

    def step(self, name: str) -> None:
        if name == self.at:
            self.meanwhile()


@pytest.mark.parametrize("at", ["generation written", "before swap"])
def test_a_run_that_was_suspended_past_its_lease_changes_nothing(one: Machine, two: Machine, at: str) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    one.write("b.txt", words(60, 1))

    def publish_elsewhere() -> None:
        two.ingest(disk=Mirror(two.index, two.vault, lease_s=0.5))

    with pytest.raises(Locked) as lost:
        one.ingest(disk=OtherMachinePublishes(one, publish_elsewhere, at=at))
    assert lost.value.exit_code == 11 and one.pointer().number == 2 and one.pointer().fence == 3
    assert f"`{one.vault.url}`" in str(lost.value), "the index, not the mirror of this machine"
    assert one.verified() == [] and {row["path"] for row in one.rows()} == {"a.txt", "b.txt"}
    one.write("c.txt", words(60, 2))
    assert one.ingest().generation == 3 and len(one.rows()) == len(two.rows())
    assert one.verified() == []


def test_a_run_that_died_here_is_not_waited_for_and_one_of_a_clone_of_this_machine_is(
    one: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        with Mirror(one.index, one.vault).leased(silent):
            held = one.vault.read("lease.json")[0]
        one.vault.swap("lease.json", one.vault.stat("lease.json").version, held)

    one.write("a.txt", words(60))
    one.ingest()
    killed()
    assert one.ingest().idle, "at once, although its lease lasts ten minutes"
    killed()
    monkeypatch.setattr(socket, "gethostname", lambda: "clone")
    started = time.monotonic()
    assert one.ingest(disk=Mirror(one.index, one.vault, lease_s=2.0)).idle
    assert time.monotonic() - started >= 2.0


def test_a_lease_of_a_dead_machine_is_cleared_by_hand(one: Machine, two: Machine) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    lease = Lease(one.vault, "dead", warn=silent, lease_s=1e9)
    lease.__enter__()
    holder = unlock(two.opened(), warn=silent, sleep=lambda _: None)
    assert holder is not None and holder.pid == os.getpid()
    assert two.ingest().exit_code == 0


# ---- what goes


def aged(machine: Machine, hours: float) -> None:
    """Every object, and what the pointer says, as if it were that much older."""
    root = Path(machine.url.removeprefix("file://"))
    then = time.time() - hours * HOURS
    for item in list(machine.vault.list()):
        if item.key != "lease.json":
            os.utime(root / item.key, (then, then))
    pointer = machine.pointer()
    places = {
        number: place if place.retired_at is None else dataclasses.replace(place, retired_at=then)
        for number, place in pointer.generations.items()
    }
    data = dataclasses.replace(pointer, generations=places).dumps()
    machine.vault.swap("current.json", machine.vault.stat("current.json").version, data)


def expected_objects(machine: Machine) -> set[str]:
    index, pointer = machine.opened(), machine.pointer()
    found = {"current.json", "lease.json", *pointer.changes.values()}
    for number, place in pointer.generations.items():
        found |= {f"{place.folder}/{name}" for name in ("manifest.json", "documents.parquet", "probe.npy")}
        for name in index.read(number).shards:
            found |= {f"vectors/{name}.parquet", f"keys/{name}.npy"}
    return found


def test_what_nobody_needs_goes_and_nothing_else(one: Machine, two: Machine) -> None:
    for night in range(4):
        one.write("a.txt", words(60, night))
        one.ingest()
    one.vault.put_new("vectors/part-00000000deadbeef.parquet", b"of a writer that was killed")
    assert len(one.pointer().generations) == 4, "what stopped being current less than an hour ago is kept"
    one.ingest()
    assert "vectors/part-00000000deadbeef.parquet" in one.stored("vectors"), "it may still be written for"
    aged(one, 2)
    fresh = two.opened()  # it has not fetched anything yet
    two.ingest()
    assert sorted(one.pointer().generations) == [3, 4]
    assert one.stored() - one.stored("state") == expected_objects(one)
    assert one.verified() == [] and verify(fresh).damage == []


def test_a_machine_that_only_reads_keeps_no_more_than_the_vault_does(one: Machine, two: Machine) -> None:
    def here() -> list[set[str]]:
        files = (two.index.glob(pattern) for pattern in ("generations/*/vectors/*", "keys/*", "cache/*.search"))
        return [{path.stem for path in found} for found in files]

    for night in range(4):
        one.write("a.txt", words(60, night))
        one.ingest()
        complete(two.opened())
        assert verify(two.opened()).damage == []
    aged(one, 2)
    for machine in (one, two):
        for path in machine.index.glob("generations/*"):
            os.utime(path, (0, 0))
    one.ingest()
    needed = {name for number in (3, 4) for name in two.opened().read(number).shards}
    assert here()[:2] == [needed, needed] and here()[2] <= needed


def test_a_reader_of_a_generation_that_was_just_replaced_reads_it_to_its_end(one: Machine, two: Machine) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    reader = two.opened()
    current = reader.current()
    assert current is not None
    for night in range(3):
        one.write("a.txt", words(60, night + 1))
        one.ingest(keep_generations=1)
    assert verify(reader).generation == 1 and verify(reader).damage == []


# ---- what is refused


def test_a_store_without_conditional_writes_is_refused_before_anything_is_written(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(Proxy(s3, strip=frozenset({"if-match", "if-none-match"}))) as deaf:
        monkeypatch.setenv("AWS_ENDPOINT_URL", deaf.endpoint)
        one = Machine(tmp_path, "one", f"{s3.bucket()}/idx")
        one.write("a.txt", words(60))
        with pytest.raises(StorageError, match="conditional writes") as refused:
            one.ingest()
        assert refused.value.exit_code == 14 and one.stored() == set() and one.embedded == 0


def test_a_prefix_that_holds_something_else_is_no_index_and_stays_as_it_is(one: Machine) -> None:
    one.vault.put_new("reports/2026.pdf", b"%PDF")
    one.write("a.txt", words(60))
    with pytest.raises(NoIndex, match=r"it holds `reports/2026.pdf`") as refused:
        one.ingest()
    assert refused.value.exit_code == 10 and one.stored() == {"reports/2026.pdf"} and not one.index.exists()


def test_a_pointer_of_a_newer_version_is_refused(one: Machine) -> None:
    one.vault.put_new("current.json", json.dumps({"format": 2}).encode())
    one.write("a.txt", words(60))
    with pytest.raises(NoIndex, match="newer version"):
        one.ingest()


def test_a_bucket_that_cannot_be_reached_is_said_and_changes_nothing(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Machine(tmp_path, "one", "s3://nowhere/idx")
    with nobody_listens() as endpoint, pytest.raises(StorageError, match="`s3://nowhere` cannot be reached"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        one.ingest()
    assert not one.index.exists()


def test_a_refused_first_run_leaves_no_index(one: Machine, two: Machine) -> None:
    with pytest.raises(Exception, match="no files found"):
        one.ingest()
    assert one.stored() <= {"lease.json"} and not one.index.exists()
    for look in (status, shards):
        with pytest.raises(NoIndex, match="has published nothing yet"):
            look(two.opened())


# ---- what is lost


def test_a_vault_that_was_emptied_is_no_index_any_more(one: Machine) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    one.vault.remove(list(one.stored()))
    with pytest.raises(NoIndex):
        shards(one.opened())
    assert one.ingest(one.docs, dim=16, max_tokens=64).generation == 1 and one.verified() == []


def test_a_shard_that_was_lost_in_the_vault_is_stored_again_by_a_machine_that_has_it(one: Machine) -> None:
    one.write("a.txt", words(60))
    one.ingest()
    (name,) = one.stored("vectors")
    one.vault.remove([name])
    assert [item.problem for item in one.verified()] == ["is missing"]
    one.ingest()
    assert one.verified() == [] and one.stored("vectors") == {name}


def test_a_shard_that_nobody_has_is_made_again_from_its_documents(one: Machine, two: Machine) -> None:
    one.write("a.txt", words(60))
    one.write("b.txt", words(60, 1))
    one.ingest()
    (name,) = one.stored("vectors")
    one.vault.remove([name])
    summary = two.ingest()
    assert summary.generation == 2 and two.stored("vectors") != {name}
    assert {item.file.split("/")[1] for item in two.verified()} == {"000001"}, "only the older one lacks it"
    assert {row["path"] for row in two.rows()} == {"a.txt", "b.txt"}


def test_bytes_that_changed_in_the_vault_are_found_by_verify_and_mended_by_the_next_run(
    one: Machine, two: Machine
) -> None:
    one.write("a.txt", words(600))
    one.ingest()
    (name,) = one.stored("vectors")
    file = Path(one.url.removeprefix("file://"), name)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert [item.file.rpartition("/")[2] for item in one.verified()] == [Path(name).name]
    assert two.ingest(reread=True).exit_code == 0
    assert two.verified() == [] and {row["path"] for row in two.rows()} == {"a.txt"}


def test_nothing_is_published_that_names_a_missing_object(one: Machine, two: Machine) -> None:
    class Loses(Mirror):
        def step(self, name: str) -> None:
            if name == "before swap":
                self.vault.remove(one.stored("vectors") | one.stored("keys"))

    one.write("a.txt", words(60))
    one.ingest(disk=Loses(one.index, one.vault))
    assert one.verified() == [], "what the machine has it stores again"
    one.write("b.txt", words(60, 1))
    with pytest.raises(StorageError, match="is missing in"):
        two.ingest(disk=Loses(two.index, two.vault))
    assert one.pointer().number == 1
    two.ingest()
    assert {item.file.split("/")[1] for item in two.verified()} == {"000001"}, "only the older one lacks it"
    assert {row["path"] for row in two.rows()} == {"a.txt", "b.txt"}
