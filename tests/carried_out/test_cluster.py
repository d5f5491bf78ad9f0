"""The hints of runs over workers, carried out: with workers in threads, and with a Ray of this machine."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedcli.cluster import adopting, worker_run
from embedcli.errors import EmbedcliError, StorageError
from embedcli.vault.lease import Borrowed, Lease
from embedcli.vault.opened import open_vault
from tests.carried_out.table import CARRIED, Command, Row, carries_out, carry_out
from tests.cluster.test_coordinator import lets_go
from tests.cluster_doubles import Double, Processes, Threads
from tests.hint_states import HERE, nothing
from tests.ray_cluster import RayCluster
from tests.tiny_models import make_qwen
from tests.workshop import UNFINISHED, Workshop, words

INGEST = "embedcli ingest {docs} --index {index} --dim 16"
ROWS = [
    Row("leave the flag out to work on this machine alone", nothing, f"{INGEST} --workers auto", [[INGEST]]),
    Row(
        "run the command on a machine of the cluster, with `--workers ray://auto`",
        nothing,
        f"{INGEST} --workers ray://head:10001",
        [[INGEST]],
    ),
]
CARRIED.update(row.hint for row in ROWS)


@pytest.mark.parametrize(("row", "way"), [(row, row.ways[0]) for row in ROWS])
def test_a_hint_is_given_in_its_state_and_helps(shop: Workshop, command: Command, row: Row, way: Any) -> None:
    carry_out(row, way, shop, command)


# ---- what is wrong with workers


@pytest.fixture
def full(shop: Workshop) -> Workshop:
    for number in range(6):
        shop.write(f"{number}.txt", words(60, number))
    return shop


def hint_of(shop: Workshop, workforce: Any, **flags: Any) -> str:
    """The hint with which a run over these workers ends, and what is said of those that are left out."""
    with pytest.raises(EmbedcliError) as raised:
        shop.ingest(workforce=workforce, **flags)
    return "\n".join([raised.value.hint, *shop.report.said])


def works(shop: Workshop, workforce: Any, **flags: Any) -> None:
    """The same command over workers of which that was mended."""
    if not (shop.index / "current").exists():
        flags = {"dim": 16, "max_tokens": 64, **flags}
    assert shop.ingest(shop.docs, workforce=workforce, **flags).exit_code == 0
    assert {row["status"] for row in shop.documents().values()} == {"indexed"}


@carries_out("use the same engine everywhere")
def test_workers_with_the_same_engine_are_taken(full: Workshop, tmp_path: Path) -> None:
    held = tmp_path / "held"
    double = Double(spoil=1.0, once=tmp_path / "spoilt", tokens_per_s=4_000.0, held=held)
    for number in range(6, 40):
        full.write(f"{number}.txt", words(60, number))
    full.write("unfinished.txt", UNFINISHED)
    left_out = lets_go(held, lambda: any("is left out" in line for line in full.report.said))
    assert full.ingest(workforce=Threads(2, double), stop_signal=left_out).exit_code == 0
    assert "(use the same engine everywhere)" in "\n".join(full.report.said)
    again = Workshop(full.docs.parent, index="another")  # that one may have the vectors of either engine
    works(again, Threads(2))
    assert "is left out" not in "\n".join(again.report.said)


@carries_out("mount the sources on its machine")
def test_a_worker_that_sees_the_sources_is_taken(full: Workshop) -> None:
    assert "mount the sources on its machine" in hint_of(full, Threads(1, Double(blind="2.txt"), wait_s=0.5))
    works(full, Threads(1))


LOST = "embedcli has to be installed in the Python of every machine; `ray logs` shows their last words"
FEW = "`ray status` shows what the cluster has; the same command goes on where this run stopped"


@carries_out(FEW)
def test_workers_that_come_later_go_on(full: Workshop) -> None:
    assert FEW in hint_of(full, Threads(0, wait_s=0.5))
    works(full, Threads(2))


@carries_out("install the same version on every machine")
def test_workers_of_the_same_version_are_taken(full: Workshop) -> None:
    hint = hint_of(full, Threads(1, sent_version="0.0.1", wait_s=0.5))
    assert "install the same version on every machine" in hint
    works(full, Threads(1))


FETCH = "fetch the same model on every machine: `embedcli pull`"


@carries_out(FETCH)
def test_workers_with_the_same_model_are_taken(full: Workshop, tmp_path: Path) -> None:
    full.ingest()
    full.write("more.txt", words(60, 99))
    other = make_qwen(tmp_path / "other")
    assert FETCH in hint_of(full, Threads(2, Double(model=str(other)), wait_s=0.5))
    works(full, Threads(2))


@carries_out("the index has to lie on a filesystem that every worker shares")
def test_shards_that_come_to_be_seen_are_taken(full: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(adopting, "VISIBLE_S", 0.1)
        patched.setattr(adopting, "_is_visible", lambda _: False)
        hint = hint_of(full, Threads(1, wait_s=0.5))
    assert "the index has to lie on a filesystem that every worker shares" in hint
    works(full, Threads(1))


@carries_out("mount it under the same path on every machine", "mount the sources under the same path on every machine")
@pytest.mark.parametrize(
    ("elsewhere", "hint"),
    [
        ({"run": "not-mounted"}, "mount it under the same path on every machine"),
        ({"witnesses": (("/not/mounted/a.txt", 1),)}, "mount the sources under the same path on every machine"),
    ],
)
def test_a_worker_to_which_the_folders_were_mounted_is_taken(
    full: Workshop, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, Any], hint: str
) -> None:
    """All workers of a test are on one machine: for this one the folders of the run are elsewhere."""
    check = worker_run.check_folders
    with monkeypatch.context() as patched:
        patched.setattr(
            worker_run, "check_folders", lambda job, index: check(dataclasses.replace(job, **elsewhere), index)
        )
        assert hint in hint_of(full, Threads(1, wait_s=0.5))
    works(full, Threads(1))


@carries_out("every worker has to reach the same vault")
def test_a_worker_that_reaches_the_vault_of_its_run_may_store(tmp_path: Path) -> None:
    here, elsewhere = (open_vault(f"file://{tmp_path / name}") for name in ("here", "elsewhere"))
    with Lease(here, "the run", warn=print) as lease:
        with pytest.raises(StorageError) as raised:
            Borrowed(elsewhere, lease.fence).check()
        assert raised.value.hint == "every worker has to reach the same vault"
        Borrowed(here, lease.fence).check()


@carries_out(LOST)
def test_workers_that_do_not_die_are_taken(full: Workshop) -> None:
    """What dies at its first operation on the disk has done nothing."""
    assert LOST in hint_of(full, Processes(1, Double(kill_at=(None, 1))))
    works(full, Processes(1))


START = (
    "start one with `ray start --head` here and `ray start --address HOST:6379` on the other machines; where Ray asks"
    " for a token, set RAY_AUTH_MODE alike for both"
)


@carries_out(START, "such as `--workers ray://auto,min=1,max=8`", "leave `--gpus` out")
def test_a_ray_that_was_started_is_joined(shop: Workshop) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    nothing(shop)
    line = [sys.executable, "-m", "embedcli", "ingest", str(shop.docs), "--index", str(shop.index)]
    line += ["--model", "minilm", "--dim", "16", "--workers"]

    def run(workers: str, environment: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*line, workers, *flags], env=environment, capture_output=True, text=True, timeout=240)

    nobody = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1", "PYTHONPATH": str(HERE.parent)}
    assert f"hint: {START}\n" in run("ray://auto", nobody).stderr
    assert "hint: such as `--workers ray://auto,min=1,max=8`\n" in run("ray://auto,min=3,max=2", nobody).stderr
    with RayCluster([1]) as cluster:  # the README's `ray start --head`
        ran = run("ray://auto,min=1,max=8", cluster.environment)
    assert ran.returncode == 0, ran.stderr
