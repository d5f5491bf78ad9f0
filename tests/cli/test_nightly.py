"""A run from cron: it ends in time, stands back behind others, and leaves a log and figures that others can read."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from embedcli.cli import nightly
from embedcli.errors import Mismatch, StorageError, UsageError
from tests.cli.test_main import HERE, PROGRAM, QUICK, QUIET, quick
from tests.held import Held
from tests.workshop import Workshop, words

BERLIN = ZoneInfo("Europe/Berlin")
CRON = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE)}
"""All that a program has of its environment when cron starts it (and where this repository is)."""


# ---- deadlines


@pytest.mark.parametrize(
    ("text", "now", "then"),
    [
        ("06:00", "2026-01-30T22:15", "2026-01-31T06:00"),
        ("06:00", "2026-01-30T02:15", "2026-01-30T06:00"),
        ("6:00", "2026-01-30T02:15", "2026-01-30T06:00"),
        ("06:00", "2026-01-30T09:00", "2026-01-30T06:00"),
        ("06:00", "2026-01-30T17:00", "2026-01-31T06:00"),
        ("06:00", "2026-01-30T06:00", "2026-01-30T06:00"),
        ("00:30", "2026-12-31T23:00", "2027-01-01T00:30"),
        ("2026-02-01T06:00", "2026-01-30T02:15", "2026-02-01T06:00"),
        ("2026-01-29 06:00", "2026-01-30T02:15", "2026-01-29T06:00"),
    ],
)
def test_a_deadline_is_the_next_such_time_unless_it_has_just_passed(text: str, now: str, then: str) -> None:
    assert nightly.deadline_at(text, datetime.fromisoformat(now)) == datetime.fromisoformat(then)


def test_a_deadline_is_a_time_on_the_clock_also_in_the_night_of_summer_time() -> None:
    started = datetime(2026, 3, 28, 22, 0, tzinfo=BERLIN)
    assert nightly.deadline_at("06:00", started).timestamp() - started.timestamp() == 7 * 3600


@pytest.mark.parametrize(
    ("text", "seconds"), [("4h", 14_400), ("90m", 5_400), ("1h30m", 5_400), ("0.5h", 1_800), ("45s", 45)]
)
def test_a_time_limit_is_written_as_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert nightly.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "4", "four hours", "4h 30", "-4h", "4H"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        nightly.duration_s(text)


@pytest.mark.parametrize("text", ["", "6", "25:00", "06:60", "tomorrow", "2026-13-01T06:00", "6 o'clock"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        nightly.deadline_at(text, datetime.now())


def test_of_a_deadline_and_a_time_limit_the_earlier_one_counts() -> None:
    assert nightly.seconds_left("2099-01-01T00:00", "1h")() == pytest.approx(3600, abs=300)
    assert nightly.seconds_left("2000-01-01T00:00", "1h")() < -1e8
    assert nightly.seconds_left(None, None)() == float("inf")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with `docs/`, many texts of one chunk each."""
    shop = Workshop(tmp_path)
    for number in range(120):
        shop.write(f"{number:03}.txt", words(60, number))
    return tmp_path


def from_cron(command: list[str], *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program as cron starts it: no terminal, no variables but those given, in the root folder."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd="/",
        env={**CRON, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_nights_with_a_time_limit_complete_the_index_one_after_another_from_cron(corpus: Path) -> None:
    """With real readers, and the seconds of an engine that needs two or three nights for the work."""
    speed = {"QUICK_TIME": "yes", "QUICK_TOKENS_PER_S": "1000"}
    index, night = corpus / "index", ["--index", corpus / "index", "--time-limit", "10s", "--quiet", "--json"]
    summaries: list[dict[str, Any]] = []
    while not (summaries and summaries[-1]["complete"]):
        sources = [] if index.exists() else [corpus / "docs", "--model", "minilm"]
        ran = from_cron(QUICK, "ingest", *sources, *night, **speed)
        assert (ran.returncode, ran.stderr) == (0, "")
        summaries.append(json.loads(ran.stdout))
        assert len(summaries) < 20
    assert len(summaries) > 1
    assert sum(night["chunks"]["embedded"] for night in summaries) <= summaries[-1]["chunks"]["total"] + 4
    assert [night["left"]["sources"] > 0 for night in summaries] == [not night["complete"] for night in summaries]


def test_a_run_ends_in_its_time_although_its_model_is_still_loading(corpus: Path) -> None:
    held = Held(corpus / "held", "loading")
    night = [corpus / "docs", "--index", corpus / "index", "--model", "minilm", "--time-limit", "3s", "--json"]
    ran = from_cron(QUICK, "ingest", *night, **held.environment)
    assert ran.returncode == 0, ran.stderr
    assert not json.loads(ran.stdout)["complete"]


def test_a_run_whose_deadline_has_passed_does_nothing_and_says_so(corpus: Path) -> None:
    night = [corpus / "docs", "--index", corpus / "index", "--deadline", "2026-01-01T06:00", "--json"]
    ran = from_cron(PROGRAM, "ingest", *night)
    assert ran.returncode == 0 and "the time was over before the changes were known" in ran.stderr
    summary = json.loads(ran.stdout)
    assert (summary["complete"], summary["generation"]) == (False, None) and not (corpus / "index").exists()
    assert from_cron(PROGRAM, "ingest", *night, "--require-complete").returncode == 3


@pytest.mark.parametrize(
    ("flag", "value", "hint"),
    [
        ("--deadline", "soon", "06:00"),
        ("--time-limit", "4", "`4h`"),
        ("--nice", "20", "--nice 10"),
        ("--nice", "-5", "--nice 10"),
    ],
)
def test_a_flag_that_makes_no_sense_is_exit_2_with_what_to_type(
    tmp_path: Path, flag: str, value: str, hint: str
) -> None:
    (tmp_path / "docs").mkdir()
    ran = from_cron(PROGRAM, "ingest", tmp_path / "docs", "--index", tmp_path / "index", flag, value)
    assert ran.returncode == 2 and hint in ran.stderr and not (tmp_path / "index").exists()


# ---- standing back


def nicer(by: int) -> int:
    """The niceness of a process that adds so much to that of these tests; 19 is the most there is."""
    return min(19, os.nice(0) + by)


def niceness_of(process: psutil.Process) -> set[int]:
    """Of each of its threads: on Linux each has its own."""
    found = set()
    with contextlib.suppress(psutil.Error, ProcessLookupError):  # it may be ending
        for thread in process.threads():
            found.add(os.getpriority(os.PRIO_PROCESS, thread.id))
    return found


def test_every_thread_and_process_of_a_run_stands_back(corpus: Path) -> None:
    command = [*QUICK, "ingest", "docs", "--index", "index", "--model", "minilm", "--nice", "7"]
    own, readers = set[int](), set[int]()
    held = Held(corpus / "held", "reading")
    env = {**QUIET, **held.environment, "QUICK_TOKENS_PER_S": "1e6"}
    env["OMP_NUM_THREADS"] = "1"  # else numpy starts threads before the flags are read
    with subprocess.Popen(command, cwd=corpus, env=env, stderr=subprocess.DEVNULL) as run:
        held.wait(run)
        process = psutil.Process(run.pid)
        while run.poll() is None:
            own |= niceness_of(process)
            readers |= {nice for child in process.children() for nice in niceness_of(child)}
            if nicer(12) in readers:
                held.go()
            time.sleep(0.1)
    assert run.returncode == 0 and own == {nicer(7)}, "the threads of the engine too"
    assert readers - own == {nicer(12)} - own, "before they have a task, readers stand back behind the run"


ENGINE_HOST = """
import os
from embedcli.cli.nightly import stand_back
from embedcli.engines.sglang.guard import group_members
from embedcli.engines.sglang.process import Host
if __name__ == "__main__":
    stand_back(7)
    job = {"factory": "tests.hosted_doubles:open_double", "arguments": {}, "dim": 16, "warm_up": [(2, 3)]}
    host = Host(job, environment=os.environ)
    host.wait_until_ready(60.0)
    print(sorted(os.getpriority(os.PRIO_PROCESS, pid) for pid in group_members(host._group.process.pid)))
    host.close()
"""


def test_the_processes_of_an_engine_stand_back_as_well() -> None:
    ran = subprocess.run([sys.executable, "-c", ENGINE_HOST], cwd=HERE, env=QUIET, capture_output=True, text=True)
    assert ran.stdout == f"{[nicer(7)] * 2}\n", ran.stderr


# ---- the log file


def test_a_rotated_log_is_reopened_and_no_line_is_lost(tmp_path: Path) -> None:
    with nightly.opened_log(tmp_path / "run.log") as log:
        assert log is not None
        log("first")
        (tmp_path / "run.log").rename(tmp_path / "run.log.1")
        log("second \udcff")
        (tmp_path / "run.log").rename(tmp_path / "run.log.2")
        (tmp_path / "run.log").touch()
        log("third")
        os.truncate(tmp_path / "run.log", 0)  # as logrotate's copytruncate does
        log("fourth")
    texts = [(tmp_path / name).read_text().split(" ", 2)[2] for name in ("run.log.1", "run.log.2", "run.log")]
    assert texts == ["first\n", "second \\udcff\n", "fourth\n"]


def test_a_log_that_can_no_more_be_written_is_one_warning_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    with nightly.opened_log(tmp_path / "logs/run.log") as log:
        assert log is not None
        (tmp_path / "logs").rename(tmp_path / "elsewhere")
        log("one")
        log("two")
        assert capsys.readouterr().err.count("warning: cannot write") == 1
        (tmp_path / "logs").mkdir()
        log("three")
    assert (tmp_path / "logs/run.log").read_text().endswith("three\n")
    with pytest.raises(StorageError, match="cannot write"), nightly.opened_log(tmp_path / "none/run.log"):
        pass


def test_the_log_has_the_error_that_ended_a_run(tmp_path: Path) -> None:
    ran = from_cron(PROGRAM, "ingest", "--index", tmp_path / "none", "--log-file", tmp_path / "run.log", "--quiet")
    assert ran.returncode == 10 and "is not an index" in (tmp_path / "run.log").read_text()


# ---- the figures


def figures(path: Path) -> dict[tuple[str, ...], float]:
    """The samples of a file in Prometheus text format, by name and the labels other than the index."""
    return {
        (sample.name, *(value for key, value in sample.labels.items() if key != "index")): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_the_figures_of_a_run_are_in_prometheus_text_format(command: Callable[..., Any], shop: Workshop) -> None:
    for number in range(3):
        shop.write(f"{number}.txt", words(60, number))
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    path = shop.docs.parent / "embedcli.prom"
    ran = command("ingest", shop.docs, "--index", shop.index, "--model", "minilm", "--metrics-file", path, "--json")
    assert ran.exit_code == 3
    found, summary = figures(path), json.loads(ran.stdout)
    assert found["embedcli_sources", "indexed"] == 3 and found["embedcli_sources", "failed"] == 1
    assert found["embedcli_failures", "damaged"] == 1 and found["embedcli_last_run_exit_code",] == 3
    assert found["embedcli_run_sources", "new"] == 4 and found["embedcli_complete",] == 1
    assert found["embedcli_chunks",] == summary["chunks"]["total"] > 0
    assert found["embedcli_run_embedded_tokens",] == summary["tokens"]["embedded"] > 0
    assert {stage for name, *stage in found if name == "embedcli_run_stage_seconds" for stage in stage} == {
        "looking", "reading", "loading", "embedding", "publishing",
    }  # fmt: skip
    assert time.time() - found["embedcli_last_success_timestamp_seconds",] < 60
    assert [name for name in os.listdir(path.parent) if "prom" in name] == ["embedcli.prom"], "no half-written file"


def test_a_failed_run_keeps_the_time_and_the_figures_of_the_last_good_one(
    command: Callable[..., Any], shop: Workshop
) -> None:
    shop.write("a.txt", words(60))
    path = shop.docs.parent / "embedcli.prom"
    night = ["ingest", "--index", shop.index, "--metrics-file", path]
    assert command(*night, shop.docs, "--model", "minilm").exit_code == 0
    good = figures(path)
    history = shop.index / "state/runs.jsonl"
    history.write_text(json.dumps(json.loads(history.read_text()) | {"ended_at": "2026-01-30T02:15:00+00:00"}) + "\n")
    shop.write("b.txt", words(60, 1))
    assert isinstance(command(*night, "--dim", 7).exception, Mismatch)
    bad = figures(path)
    assert (bad["embedcli_last_run_exit_code",], bad["embedcli_chunks",]) == (12, good["embedcli_chunks",])
    assert bad["embedcli_last_success_timestamp_seconds",] == datetime(2026, 1, 30, 2, 15, tzinfo=UTC).timestamp()
    assert bad["embedcli_last_run_timestamp_seconds",] >= good["embedcli_last_success_timestamp_seconds",]


def test_figures_that_cannot_be_written_are_a_warning(command: Callable[..., Any], shop: Workshop) -> None:
    shop.write("a.txt", words(60))
    path = shop.docs / "none" / "embedcli.prom"
    ran = command("ingest", shop.docs, "--index", shop.index, "--model", "minilm", "--metrics-file", path)
    assert ran.exit_code == 0 and "warning: cannot write" in ran.stderr


def test_what_is_no_file_is_written_to_and_never_replaced_by_the_figures(
    command: Callable[..., Any], shop: Workshop
) -> None:
    """As root that would put a file in the place of the machine's /dev/null."""
    shop.write("a.txt", words(60))
    places = shop.docs.parent / "places"
    places.mkdir()
    null, full, pipe, link = (places / name for name in ("null", "full", "pipe", "link"))
    null.symlink_to("/dev/null")
    full.symlink_to("/dev/full")
    os.mkfifo(pipe)
    link.symlink_to("file.prom")
    night = ["ingest", shop.docs, "--index", shop.index, "--model", "minilm", "--metrics-file"]
    assert "warning" not in command(*night, null).stderr
    assert f"warning: cannot write `{full}`: No space left" in command(*night, full).stderr
    assert f"warning: cannot write `{pipe}`" in command(*night, pipe).stderr, "nobody reads it, and nobody waits"
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert "warning" not in command(*night, pipe).stderr
    assert b"embedcli_last_run_exit_code" in os.read(reader, 1 << 20)
    os.close(reader)
    assert "warning" not in command(*night, link).stderr and figures(places / "file.prom")
    assert null.is_symlink() and full.is_symlink() and link.is_symlink() and pipe.is_fifo()


def test_a_log_on_a_full_disk_changes_nothing_of_what_a_run_comes_to(shop: Workshop) -> None:
    shop.write("a.txt", words(60))
    night = ["ingest", shop.docs, "--index", shop.index, "--model", "minilm", "--log-file", "/dev/full"]
    for flags, code in (((), 0), (("--dim", "7"), 12)):
        ran = quick(*night, *flags, cwd=shop.docs)
        assert ran.returncode == code and "cannot write the output" not in ran.stderr
        assert ran.stderr.count("/dev/full") == 1 and "the run goes on without it" in ran.stderr
