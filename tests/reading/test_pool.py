"""The promises of the pool: what a file does to its reader costs that file, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from works_for_tests import Acts, DiesAtStart, RaisesAtStart

from embedcli.errors import ModelUnavailable, UnreadableSource
from embedcli.reading.pool import Pool
from embedcli.reading.process import Limits, WorkFailed, reason_of_death

QUICK = Limits(page_seconds=0.5, file_seconds=60.0, memory_bytes=256 << 20)
PATIENT = Limits(page_seconds=20.0, file_seconds=60.0, memory_bytes=256 << 20)


def results_of(pool: Pool[Any, Any], tasks: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Feed the tasks and give every outcome, as they finish."""
    pool.feed(tasks)
    while (outcome := pool.get(None)) is not None:
        yield outcome


def outcomes(*tasks: str, processes: int = 1, limits: Limits = PATIENT) -> dict[str, object]:
    with Pool(Acts(), processes=processes, limits=limits) as pool:
        return dict(results_of(pool, iter(tasks)))


def reason(outcome: object) -> str:
    assert isinstance(outcome, UnreadableSource), outcome
    return outcome.reason


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # a zombie that nobody has reaped yet is not running
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def children_of(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_each_of_500_tasks_comes_back_once_and_a_single_child_keeps_their_order() -> None:
    tasks = [str(number) for number in range(500)]
    with Pool(Acts(), processes=1, limits=PATIENT) as pool:
        assert list(results_of(pool, iter(tasks))) == [(task, task) for task in tasks]
    with Pool(Acts(), processes=2, limits=PATIENT) as pool:
        assert sorted(results_of(pool, iter(tasks))) == sorted((task, task) for task in tasks)


def test_a_task_of_several_parts_that_kills_its_child_is_done_part_by_part() -> None:
    parts = ("in_a_tuple first", "crash", "in_a_tuple third")
    with Pool(Acts(), processes=1, limits=PATIENT, message_of=lambda _: "crash", parts_of=lambda _: parts) as pool:
        ((_, (first, second, third)),) = list(results_of(pool, iter(["a batch"])))
    assert (first, reason(second), third) == ("first", "reader_crashed", "third")


def test_a_crash_costs_only_its_own_file() -> None:
    found = outcomes("a", "crash", "b", "exit", "c")
    assert reason(found.pop("crash")) == reason(found.pop("exit")) == "reader_crashed"
    assert found == {"a": "a", "b": "b", "c": "c"}


def test_a_child_killed_between_two_files_costs_neither() -> None:
    seen: list[int] = []

    def tasks() -> Iterator[str]:
        yield "state"
        assert wait_until(lambda: bool(seen))
        os.kill(seen[0], signal.SIGKILL)
        os.waitid(os.P_PID, seen[0], os.WEXITED | os.WNOWAIT)  # until its last thread is gone too; the pool reaps it
        yield "a"

    with Pool(Acts(), processes=1, limits=PATIENT) as pool:
        results = results_of(pool, tasks())
        _, state = next(results)
        assert isinstance(state, dict)
        seen.append(state["pid"])
        assert list(results) == [("a", "a")]


def test_a_hang_costs_only_its_own_file_and_is_a_timeout_after_the_second_try() -> None:
    started = time.monotonic()
    with Pool(Acts(), processes=1, limits=QUICK, size_of=lambda task: 0 if task == "hang" else 1 << 30) as pool:
        found = dict(results_of(pool, iter(["a", "hang", "b"])))
    assert reason(found["hang"]) == "timeout"
    assert (found["a"], found["b"]) == ("a", "b")
    assert 1.0 <= time.monotonic() - started < 300.0, "it hangs for ten minutes each time"


def test_what_hangs_with_form_values_is_read_again_without() -> None:
    limits = Limits(page_seconds=5.0)
    assert outcomes("hang_with_forms", limits=limits) == {"hang_with_forms": "read without forms"}


def test_slow_pages_are_no_hang() -> None:
    """In all they take longer than one may."""
    assert outcomes("beat_slowly 55", limits=Limits(page_seconds=5.0)) == {"beat_slowly 55": "all pages"}


def test_a_file_that_beats_for_ever_ends_at_the_limit_of_the_file() -> None:
    found = outcomes("beat_slowly 1000", limits=Limits(page_seconds=8.0, file_seconds=10.0))
    assert reason(found["beat_slowly 1000"]) == "timeout"


@pytest.mark.parametrize(("size_bytes", "expected"), [(0, "timeout"), (100_000_000, "thought")])
def test_a_large_file_may_take_longer_without_a_beat(size_bytes: int, expected: str) -> None:
    with Pool(Acts(), processes=1, limits=QUICK, size_of=lambda _: size_bytes) as pool:
        (outcome,) = (outcome for _, outcome in results_of(pool, iter(["think 1.2"])))
    assert (outcome if isinstance(outcome, str) else reason(outcome)) == expected


@pytest.mark.parametrize(("size_bytes", "expected"), [(0, "out_of_memory"), (64 << 20, 400 << 20)])
def test_a_large_file_may_take_more_memory_and_the_next_small_one_may_not(size_bytes: int, expected: object) -> None:
    sizes = {"hold_megabytes 400": size_bytes}
    with Pool(Acts(), processes=1, limits=PATIENT, size_of=lambda task: sizes.get(task, 0)) as pool:
        found = dict(results_of(pool, iter(["hold_megabytes 400", "memory_bomb"])))
    held = found["hold_megabytes 400"]
    assert (held if isinstance(held, int) else reason(held)) == expected
    assert reason(found["memory_bomb"]) == "out_of_memory"


def test_a_memory_bomb_is_out_of_memory_and_the_next_file_is_read() -> None:
    found = outcomes("memory_bomb", "a", "silent_abort", "b", limits=PATIENT)
    assert reason(found["memory_bomb"]) == reason(found["silent_abort"]) == "out_of_memory"
    assert (found["a"], found["b"]) == ("a", "b")


def test_an_abort_that_prints_its_cause_is_a_crash_with_that_text() -> None:
    found = outcomes("loud_abort")["loud_abort"]
    assert reason(found) == "reader_crashed"
    assert "invalid pointer" in str(found)


@pytest.mark.parametrize(
    ("status", "last_words", "expected"),
    [
        (-signal.SIGKILL, b"", "out_of_memory"),
        (-signal.SIGABRT, b"", "out_of_memory"),
        (
            -signal.SIGABRT,
            b"libc++abi: terminating due to uncaught exception of type std::bad_alloc",
            "out_of_memory",
        ),
        (-signal.SIGABRT, b"memory allocation of 4096 bytes failed", "out_of_memory"),
        (-signal.SIGABRT, b"double free or corruption (out)", "reader_crashed"),
        (-signal.SIGSEGV, b"", "reader_crashed"),
        (1, b"", "reader_crashed"),
    ],
)
def test_the_reason_follows_from_how_a_child_died(status: int, last_words: bytes, expected: str) -> None:
    assert reason_of_death(status, last_words) == expected


def test_a_child_that_has_grown_too_large_is_replaced_and_no_task_is_lost() -> None:
    found = outcomes(*(f"leak {number}" for number in range(12)), limits=Limits(memory_bytes=256 << 20))
    assert len(found) == 12
    assert len(set(found.values())) == 3


def test_64_mebibytes_cross_quickly() -> None:
    with Pool(Acts(), processes=1, limits=PATIENT) as pool:
        results = results_of(pool, iter(["warm", f"big {64 << 20}"]))
        assert next(results) == ("warm", "warm")
        started = time.process_time()
        _, data = next(results)
        assert isinstance(data, bytes)
        assert len(data) == 64 << 20
        assert time.process_time() - started < 30


def test_a_refusal_arrives_whole_and_its_child_goes_on() -> None:
    found = outcomes("refuse password", "state 1", "refuse damaged", "state 2")
    assert repr(found["refuse password"]) == repr(UnreadableSource("password", "told so"))
    assert found["state 1"] == found["state 2"]


def test_a_bug_in_a_child_is_raised_here_with_its_traceback_and_never_done() -> None:
    with Pool(Acts(), processes=2, limits=PATIENT) as pool:
        with pytest.raises(WorkFailed, match="ZeroDivisionError: a bug of ours"):
            list(results_of(pool, iter(["a", "bug", "b"])))
        assert not pool.done


def test_an_error_meant_for_the_user_leaves_the_start_as_itself() -> None:
    work = RaisesAtStart(ModelUnavailable("the tokenizer is gone", "pull it"))
    with Pool(work, processes=1, limits=PATIENT) as pool, pytest.raises(ModelUnavailable) as raised:
        list(results_of(pool, iter("a")))
    assert raised.value.hint == "pull it"


def test_a_child_that_dies_at_its_start_is_tried_three_times_and_then_an_error() -> None:
    with (
        Pool(DiesAtStart(ValueError()), processes=1, limits=PATIENT) as pool,
        pytest.raises(WorkFailed, match="no room for me"),
    ):
        list(results_of(pool, iter("a")))


def test_an_error_of_the_task_iterator_is_raised_where_results_are_taken() -> None:
    def tasks() -> Iterator[str]:
        yield "a"
        raise FileNotFoundError("the plan is gone")

    with Pool(Acts(), processes=1, limits=PATIENT) as pool, pytest.raises(FileNotFoundError):
        list(results_of(pool, tasks()))


def test_readers_wait_while_the_caller_takes_no_results() -> None:
    pulled: list[str] = []

    def tasks() -> Iterator[str]:
        for number in range(100):
            pulled.append(str(number))
            yield str(number)

    with Pool(Acts(), processes=2, limits=PATIENT) as pool:
        pool.feed(tasks())
        assert wait_until(lambda: len(pulled) == 4)
        time.sleep(0.2)
        assert len(pulled) == 4
        assert pool.get(None) is not None
        assert wait_until(lambda: len(pulled) == 5)
        time.sleep(0.1)
        assert len(pulled) == 5


def test_get_returns_none_when_there_is_no_result_yet_or_none_to_come(tmp_path: Path) -> None:
    awaited = tmp_path / "awaited"
    with Pool(Acts(), processes=1, limits=PATIENT) as pool:
        assert pool.get(0.01) is None
        pool.feed(iter([f"beat_until {awaited}"]))
        assert pool.get(0.01) is None
        assert not pool.done
        awaited.touch()
        assert pool.get(None) == (f"beat_until {awaited}", "there it is")
        assert pool.get(None) is None
        assert pool.done


def test_children_start_before_there_are_tasks() -> None:
    before = set(children_of(os.getpid()))
    with Pool(Acts(), processes=1, limits=PATIENT) as pool:
        assert wait_until(lambda: len(set(children_of(os.getpid())) - before) == 1)
        assert not pool.done


def test_close_leaves_nothing_running_though_all_children_hang() -> None:
    pids: list[int] = []
    with Pool(Acts(), processes=2, limits=PATIENT) as pool:
        pool.feed(iter(["state 1", "state 2", "hang", "hang"]))
        for _ in range(2):
            outcome = pool.get(None)
            assert outcome is not None
            assert isinstance(outcome[1], dict)
            pids.append(outcome[1]["pid"])
        started = time.monotonic()
    assert time.monotonic() - started < 300.0, "they hang for ten minutes"
    assert not any(alive(pid) for pid in pids)


def test_a_child_belongs_to_no_terminal_and_leaves_signals_to_the_parent() -> None:
    state = outcomes("state")["state"]
    assert isinstance(state, dict)
    assert state["group"] == state["pid"] != os.getpgid(0)
    assert state["sigint"] == state["sigterm"] == signal.SIG_IGN
    assert state["nice"] >= 5


def test_a_child_imports_neither_the_command_line_nor_torch() -> None:
    modules = outcomes("modules")["modules"]
    assert isinstance(modules, list)
    assert "embedcli.reading.process" in modules
    assert not {"embedcli.cli", "embedcli.__main__", "__mp_main__", "torch", "transformers"} & set(modules)


def test_a_parent_killed_leaves_no_child(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
            import sys
            sys.path[:] = {sys.path!r}
            from embedcli.reading.pool import Limits, Pool
            from works_for_tests import Acts
            pool = Pool(Acts(), processes=2, limits=Limits())
            pool.feed(iter(["state 1", "hang", "hang"]))
            print(pool.get(None)[1]["pid"], flush=True)
            pool.get(None)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert wait_until(lambda: len(children_of(parent.pid)) == 2), "the other one may still be starting"
        pids = children_of(parent.pid)
        assert pid in pids
        parent.kill()
    assert wait_until(lambda: not any(alive(pid) for pid in pids))
