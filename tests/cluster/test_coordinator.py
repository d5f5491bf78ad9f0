"""A run over workers gives the index that a run in one process gives, whatever becomes of its messages and workers.

In: the real coordinator and the real workers over threads and processes (tests/cluster_doubles.py). Not here: kills at
each step of the disk (test_kills.py), Ray (test_ray_transport.py).
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcli.cluster.messages import Answer, unpack_reply
from embedcli.errors import EngineError, InputError, Mismatch, Stopped
from embedcli.index.generations import Index
from embedcli.report import Progress
from embedcli.vault.disk import Disk
from embedcli.verbs.verify import verify
from tests.cluster_doubles import Double, Processes, Threads
from tests.tiny_models import make_qwen
from tests.workshop import UNFINISHED, Lines, Workshop, words

SEEDS = range(500) if os.environ.get("EMBEDCLI_TESTS_LONG") == "1" else range(6)


def fill(shop: Workshop, documents: int = 24) -> None:
    """Files of all kinds: alike, in folders, containers, with a `#` in their names, unreadable ones."""
    for number in range(documents):
        shop.write(f"{number % 3}/{number:03d}.txt", words(60 + 10 * (number % 5), seed=number))
    shop.write("copy.txt", words(60, seed=0))
    shop.write("records.jsonl", "".join(json.dumps({"id": n, "text": words(20, n + 500)}) + "\n" for n in range(30)))
    shop.write("records.jsonl#7.txt", words(30, seed=900))
    shop.write("empty.txt", "")
    shop.write("broken.pdf", b"%PDF-1.4\nnothing")
    mail = "From: a@b.c\nSubject: minutes\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n"
    mail += f"Content-Type: text/plain\n\n{words(30, 901)}\n--x\nContent-Type: text/plain; name=a.txt\n"
    shop.write("mail.eml", f"{mail}Content-Disposition: attachment; filename=a.txt\n\n{words(40, 902)}\n--x--\n")


def state_of(shop: Workshop) -> tuple[Any, Any]:
    """Rows and documents, without where the rows lie and the number of the generation."""
    documents = shop.documents()
    for row in documents.values():
        row["shard"] = row["first_row"] = None
    return shop.content(), documents


@pytest.fixture
def alone(tmp_path: Path) -> tuple[Workshop, Any]:
    """A corpus, and what a run in one process makes of it."""
    shop = Workshop(tmp_path, index="alone")
    fill(shop)
    shop.write("unfinished.txt", UNFINISHED)
    summary = shop.ingest().to_json()
    return shop, (state_of(shop), {name: summary[name] for name in COMPARED})


COMPARED = ("exit_code", "sources", "indexed", "failures_new", "failures", "skipped", "replaced", "complete")


NEVER_S = 120.0


def lets_go(held: Path, when: Callable[[], bool]) -> Callable[[], None]:
    """In place of what says whether the run is to stop: once `when` says so, UNFINISHED gets its vectors; or after two
    minutes, for the test to fail rather than to wait."""
    give_up_s = time.monotonic() + NEVER_S

    def look() -> None:
        if when() or time.monotonic() > give_up_s:
            held.touch()

    return look


def over(shop: Workshop, name: str) -> Workshop:
    """The same documents, another index."""
    return Workshop(shop.docs.parent, index=name)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_index_of_workers_is_that_of_one_process(alone: tuple[Workshop, Any], count: int) -> None:
    shop, (state, compared) = alone
    workers = over(shop, "workers")
    summary = workers.ingest(workforce=Threads(count)).to_json()
    assert state_of(workers) == state
    assert {name: summary[name] for name in COMPARED} == compared
    assert not list((workers.index / "staging").iterdir())
    assert verify(Index(workers.index, disk=Disk())).damage == []


@pytest.mark.parametrize("seed", SEEDS)
def test_no_order_delay_repetition_or_loss_of_answers_changes_the_index(alone: tuple[Workshop, Any], seed: int) -> None:
    shop, (state, compared) = alone
    workers = over(shop, "workers")
    chaos = random.Random(seed)
    flags = {"checkpoint_every_s": chaos.choice([0.0, 60.0]), "publish_every_s": chaos.choice([0.0, 0.3])}
    double = Double(tokens_per_s=chaos.choice([0.0, 20_000.0]))
    summary = workers.ingest(workforce=Threads(chaos.randint(1, 4), double, chaos=chaos), **flags).to_json()
    assert state_of(workers) == state
    assert {name: summary[name] for name in COMPARED} == compared


def test_what_is_published_on_the_way_is_whole_and_later_rows_say_so(
    alone: tuple[Workshop, Any], tmp_path: Path
) -> None:
    shop, (state, _) = alone
    workers, held = over(shop, "workers"), tmp_path / "held"
    summary = workers.ingest(
        workforce=Threads(2, Double(tokens_per_s=4_000.0, held=held)), publish_every_s=0.4,
        stop_signal=lets_go(held, (workers.index / "current").exists),
    )  # fmt: skip
    assert summary.generation and summary.generation > 1
    assert state_of(workers) == state
    changed_in = {row["path"]: row["changed_in"] for row in workers.rows(["path", "changed_in"])}
    assert set(changed_in.values()) <= set(range(1, summary.generation + 1)) and len(set(changed_in.values())) > 1
    assert verify(Index(workers.index, disk=Disk())).damage == []


def test_a_night_with_changes_moves_and_deletions_is_that_of_one_process(alone: tuple[Workshop, Any]) -> None:
    shop, _ = alone
    workers = over(shop, "workers")
    workers.ingest(workforce=Threads(2))
    shop.write("0/000.txt", words(80, seed=777))
    (shop.docs / "1/001.txt").rename(shop.docs / "1/moved.txt")
    (shop.docs / "2/002.txt").unlink()
    records = (shop.docs / "records.jsonl").read_text().splitlines(keepends=True)
    shop.write("records.jsonl", "".join(records[3:] + [json.dumps({"id": "x", "text": words(20, 999)})]))
    expected = shop.ingest().to_json()
    found = workers.ingest(workforce=Threads(2)).to_json()
    assert {name: found[name] for name in COMPARED} == {name: expected[name] for name in COMPARED}
    assert found["chunks"] == expected["chunks"]
    ours, theirs = state_of(workers), state_of(shop)
    assert ours == theirs
    assert workers.ingest().idle


# ---- workers that are lost, late, or alike in name only


def test_a_worker_that_is_suspended_until_its_slices_are_done_elsewhere_changes_nothing(
    alone: tuple[Workshop, Any], tmp_path: Path
) -> None:
    shop, (state, _) = alone
    workers = over(shop, "workers")
    once, at = tmp_path / "once", ("step shard stored", 1)
    workforce = Processes(2, Double(tokens_per_s=3_000.0, once=once, stop_at=at))
    ended = threading.Event()

    def watch() -> None:
        while not (suspended := [handle for handle in workforce.handles if handle.is_suspended]):
            if ended.wait(0.02):
                return
        suspended[0].cut_off("suspended")
        while len(_shards(workers, ".")) < 6 and not ended.wait(0.02):
            pass
        os.kill(suspended[0].process.pid, signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        workers.ingest(workforce=workforce, checkpoint_every_s=0.0)
    finally:
        ended.set()
        thread.join()
    for handle in workforce.handles:
        if handle.is_cut_off:
            handle.end()
    assert any("is lost: suspended" in line for line in workers.report.said)
    assert state_of(workers) == state


def _shards(shop: Workshop, below: str) -> list[Path]:
    return list(shop.index.glob(f"staging/*/{below}/part-*.parquet"))


def test_a_document_that_kills_its_workers_is_left_out_and_everything_else_is_there(shop: Workshop) -> None:
    for number in range(20):
        shop.write(f"{number:02d}.txt", words(40, seed=number))
    shop.write("10-poison.txt", words(40, seed=100))
    workforce = Processes(2, Double(killer="poison"))
    assert shop.ingest(workforce=workforce).exit_code == 3
    documents = shop.documents()
    assert (documents["10-poison.txt"]["status"], documents["10-poison.txt"]["reason"]) == ("failed", "reader_crashed")
    assert {row["status"] for path, row in documents.items() if path != "10-poison.txt"} == {"indexed"}
    lost = [line for line in shop.report.said if " is lost: " in line]
    assert 2 <= len(lost) <= 4


def test_a_document_that_kills_its_workers_alone_costs_two(shop: Workshop) -> None:
    shop.write("poison.txt", words(40))
    shop.write("well.txt", words(40, seed=1))
    assert shop.ingest(workforce=Processes(1, Double(killer="poison"))).exit_code == 3
    assert len([line for line in shop.report.said if " is lost: " in line]) == 2
    assert shop.documents()["poison.txt"]["reason"] == "reader_crashed"


def test_a_worker_that_gives_other_vectors_than_the_index_gets_nothing(shop: Workshop) -> None:
    for number in range(4):
        shop.write(f"{number}.txt", words(60, seed=number))
    shop.ingest()
    shop.write("new.txt", words(60, seed=50))
    with pytest.raises(EngineError, match="gives other vectors than those of the index"):
        shop.ingest(workforce=Threads(1, Double(spoil=1.0), wait_s=0.5))
    assert any("worker thread-1 is left out: " in line for line in shop.report.said)
    assert shop.ingest(workforce=Threads(1)).exit_code == 0


def test_workers_of_8_bits_may_differ_more_from_each_other(shop: Workshop, tmp_path: Path) -> None:
    for number in range(40):
        shop.write(f"{number}.txt", words(60, seed=number))
    shop.write("unfinished.txt", UNFINISHED)
    held = tmp_path / "held"
    double = Double(spoil=0.08, once=tmp_path / "spoilt", precision="fp8", tokens_per_s=4_000.0, held=held)
    judged = lets_go(held, lambda: said(shop, " is ready: ", " is left out: ") == 2)
    shop.ingest(quantization="fp8", workforce=Threads(2, double), stop_signal=judged)
    assert said(shop, " is ready: fp8 ") == 2, shop.report.said
    assert {row["status"] for row in shop.documents().values()} == {"indexed"}


def test_a_worker_that_gives_other_vectors_than_the_first_one_gets_nothing(shop: Workshop, tmp_path: Path) -> None:
    for number in range(40):
        shop.write(f"{number}.txt", words(60, seed=number))
    shop.write("unfinished.txt", UNFINISHED)
    held = tmp_path / "held"
    double = Double(spoil=1.0, once=tmp_path / "spoilt", tokens_per_s=4_000.0, held=held)
    judged = lets_go(held, lambda: said(shop, " is ready: ", " is left out: ") == 2)
    shop.ingest(workforce=Threads(2, double), stop_signal=judged)
    assert said(shop, "is left out: it gives other vectors: cosine") == 1
    assert {row["status"] for row in shop.documents().values()} == {"indexed"}


def said(shop: Workshop, *words: str) -> int:
    """How many lines of its run have one of these in them."""
    return len([line for line in shop.report.said if any(one in line for one in words)])


def test_workers_with_another_model_end_the_run_with_its_name(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", words(60))
    shop.ingest()
    shop.write("b.txt", words(60, seed=1))
    other = make_qwen(tmp_path / "other")
    with pytest.raises(Mismatch, match="is another model there"):
        shop.ingest(workforce=Threads(2, Double(model=str(other)), wait_s=0.5))


def test_workers_of_another_version_end_the_run(shop: Workshop) -> None:
    shop.write("a.txt", words(60))
    with pytest.raises(Mismatch, match=r"embedcli .* is installed there, the run is of embedcli"):
        shop.ingest(workforce=Threads(1, sent_version="0.0.1", wait_s=0.5))


def test_without_a_worker_in_time_the_run_ends_with_13_and_can_go_on(shop: Workshop) -> None:
    shop.write("a.txt", words(60))
    with pytest.raises(EngineError, match="0 workers came in 0 minutes, 1 are needed") as error:
        shop.ingest(workforce=Threads(0, wait_s=0.5))
    assert error.value.exit_code == 13
    assert shop.ingest(dim=16, max_tokens=64).exit_code == 0


def test_a_worker_without_the_share_of_the_sources_is_left_out_and_no_source_vanishes(shop: Workshop) -> None:
    """The worker does not find the file and the run does: as with a share that is not mounted."""
    for number in range(4):
        shop.write(f"{number}.txt", words(60, seed=number))
    workforce = Threads(1, Double(blind="2.txt"), wait_s=0.5)
    with pytest.raises(InputError, match="is not there for it, but here"):
        shop.ingest(workforce=workforce)
    assert shop.ingest().exit_code == 0 and shop.documents()["2.txt"]["status"] == "indexed"


# ---- machines that are about to go


def with_notice(workforce: Any, at_stop: Callable[[Any], object]) -> tuple[Any, dict[str, list[Any]]]:
    """Give notice of the machine of the first worker that has stored something. Also returns the calls to each worker
    and its answers; `at_stop` is called with the call to stop."""
    heard: dict[str, list[Any]] = {}
    noting = threading.Lock()

    def arrived() -> list[Any]:
        for handle in (new := type(workforce).arrived(workforce)):
            watch(handle, heard.setdefault(handle.name, []))
        return new

    def watch(handle: Any, its: list[Any]) -> None:
        plain = handle.call

        def call(method: str, message: bytes) -> Any:
            its.append(method)
            future = plain(method, message)
            if method == "collect":
                future.add_done_callback(note)
            elif method == "stop" and handle.name in workforce.leaving:
                at_stop(handle)
            return future

        def note(future: Any) -> None:
            if future.exception() is None and (answers := unpack_reply(future.result()).answers):
                its.extend(answers)
                with noting:
                    workforce.leaving = workforce.leaving or {handle.name}

        handle.call = call

    workforce.arrived = arrived
    return workforce, heard


GOES = " gets no more work: its machine is about to go"


def test_a_worker_whose_machine_is_about_to_go_gets_no_new_slice_and_what_it_has_stored_counts(
    shop: Workshop, tmp_path: Path
) -> None:
    for number in range(60):
        shop.write(f"{number:02d}.txt", words(100, seed=number))
    shop.write("unfinished.txt", UNFINISHED)
    held = tmp_path / "held"
    double = Double(tokens_per_s=3_000.0, read_log=tmp_path / "read", held=held)
    workforce, heard = with_notice(Threads(2, double), lambda _: None)
    goes = lets_go(held, lambda: said(shop, GOES) == 1)
    assert shop.ingest(workforce=workforce, checkpoint_every_s=0.0, stop_signal=goes).exit_code == 0
    (name,) = workforce.leaving
    its = heard[name]
    assert f"worker {name}{GOES}" in shop.report.said
    assert "offer" in its and "offer" not in its[its.index("stop") :]
    assert [handle.name for handle in workforce.handles] == ["thread-1", "thread-2", "thread-3"], "another one is asked"
    assert {row["status"] for row in shop.documents().values()} == {"indexed"}
    stored = {o.key[1] for answer in its if isinstance(answer, Answer) for o in answer.stored.outcomes}
    read = Counter((tmp_path / "read").read_text().splitlines())
    assert stored and {read[path] for path in stored} == {1}, "what it has stored is not read again"


def test_a_machine_that_goes_before_its_worker_has_stopped_changes_nothing(shop: Workshop, tmp_path: Path) -> None:
    for number in range(60):
        shop.write(f"{number:02d}.txt", words(100, seed=number))
    shop.write("unfinished.txt", UNFINISHED)
    held = tmp_path / "held"
    double = Double(tokens_per_s=3_000.0, held=held)
    workforce, _ = with_notice(Processes(2, double), lambda handle: handle.process.kill())
    goes = lets_go(held, lambda: said(shop, GOES) == 1)
    assert shop.ingest(workforce=workforce, checkpoint_every_s=0.0, stop_signal=goes).exit_code == 0
    assert len(workforce.handles) == 3
    assert {row["status"] for row in shop.documents().values()} == {"indexed"}
    assert verify(Index(shop.index, disk=Disk())).damage == []


# ---- stops


def test_a_stop_keeps_what_the_workers_have_in_hand(alone: tuple[Workshop, Any], tmp_path: Path) -> None:
    shop, (state, _) = alone
    workers, log, held = over(shop, "workers"), tmp_path / "log", tmp_path / "held"

    def signal_number() -> int | None:
        if said(workers, " is ready: ") < 2 or not _shards(workers, "writer-*") + _shards(workers, "."):
            return None
        held.touch()
        return signal.SIGTERM

    double = Double(tokens_per_s=2_000.0, log_file=log, held=held)
    with pytest.raises(Stopped) as stopped:
        workers.ingest(workforce=Threads(2, double), stop_signal=signal_number, checkpoint_every_s=0.0)
    assert stopped.value.exit_code == 143
    in_hand = len(log.read_text().splitlines())
    workers.ingest(workforce=Threads(1, Double(log_file=log)))
    assert state_of(workers) == state
    rows = Counter(log.read_text().splitlines())
    probe = {row for row, count in rows.items() if count >= 6}
    assert len(probe) == 9 and in_hand > 9 * 4
    assert {count for row, count in rows.items() if row not in probe} == {1}, "nothing is embedded twice"


def test_a_time_limit_publishes_what_is_whole_and_the_next_run_embeds_nothing_twice(
    alone: tuple[Workshop, Any],
) -> None:
    shop, (state, _) = alone
    workers = over(shop, "workers")
    ends_s = time.monotonic() + 2.0
    summary = workers.ingest(
        workforce=Threads(2, Double(tokens_per_s=700.0)), checkpoint_every_s=0.0,
        seconds_left=lambda: ends_s + 1.0 - time.monotonic(),
    )  # fmt: skip
    assert not summary.complete and summary.left["sources"]
    assert workers.ingest(workforce=Threads(2)).complete
    assert state_of(workers) == state
    assert not list((workers.index / "staging").iterdir())


# ---- what it costs


def test_a_document_costs_less_than_a_kilobyte_of_messages(shop: Workshop) -> None:
    for number in range(300):
        shop.write(f"{number:03d}.txt", words(20, seed=number))
    workforce = Threads(2)
    shop.ingest(workforce=workforce)
    asked = workforce.bytes_by_method
    each = (asked["offer"] + asked["collect"]) / 300
    print(f"{asked['offer'] / 300:.0f} bytes to, {asked['collect'] / 300:.0f} back a document; open {asked['open']:,}")
    assert each < 1_000


class Timed(Lines):
    """Remembers the CPU time of this process when the workers were ready, and when they had done everything."""

    ready_cpu = done_cpu = 0.0

    def _write(self, text: str, *, show: bool) -> None:
        if " is ready: " in text:
            self.ready_cpu = time.process_time()
        super()._write(text, show=show)

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        if progress.phase == "publishing":
            self.done_cpu = time.process_time()


def test_a_document_costs_the_run_a_few_milliseconds_at_most(shop: Workshop) -> None:
    """Of its own CPU time, with workers in processes of their own; less than one on an idle machine."""
    for number in range(400):
        shop.write(f"{number:03d}.txt", words(20, seed=number))
    report = Timed()
    shop.ingest(workforce=Processes(2), report=report)
    each_ms = (report.done_cpu - report.ready_cpu) / 400 * 1e3
    print(f"{each_ms:.2f} ms a document")
    assert 0 < each_ms < 10
