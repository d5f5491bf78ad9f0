"""The engine host's process without SGLang: its batches and answers, its end, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embedcli.engines.sglang.guard import LOG, SHARED_MEMORY, group_members, remove_traces, wait_for_group
from embedcli.engines.sglang.process import Host, quote, telling_line
from embedcli.engines.sglang.wire import pack_rows, unpack_rows
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from tests import hosted_doubles as doubles
from tests.fake_engines import vector

DIM = 16
START_S = 120.0
ANSWER_S = 120.0
REPOSITORY = Path(__file__).parents[3]

StartHost = Callable[..., Host]


@pytest.fixture
def start() -> Iterator[StartHost]:
    """Starts a host that runs the double of that name; all hosts are closed at the end."""
    hosts: list[Host] = []

    def start_host(name: str = "open_double", *, show_log: Callable[[str], None] | None = None) -> Host:
        job = {"factory": f"tests.hosted_doubles:{name}", "arguments": {}, "dim": DIM, "warm_up": [(2, 3)]}
        hosts.append(Host(job, environment=os.environ, show_log=show_log))
        return hosts[-1]

    yield start_host
    for host in hosts:
        host.close()


def rows_of(*ids: int) -> list[np.ndarray]:
    return [np.array([one], np.uint32) for one in ids]


def group_of(host: Host) -> int:
    return host._group.process.pid


# Rows and answers.


def test_rows_survive_the_pipe_as_lists_of_int() -> None:
    rows = [np.array([7], np.uint32), np.array([2**32 - 1, 0, 5], np.uint32)]
    assert unpack_rows(pack_rows(rows), 2) == [[7], [2**32 - 1, 0, 5]]


def test_many_batches_in_flight_are_each_answered_in_the_order_of_their_rows(start: StartHost) -> None:
    host = start()
    host.wait_until_ready(START_S)
    source = np.random.default_rng(1)
    batches = [[source.integers(0, 200, 300, dtype=np.uint32) for _ in range(256)] for _ in range(8)]
    answers = [future.result(ANSWER_S) for future in [host.submit(rows) for rows in batches]]
    for rows, answer in zip(batches, answers, strict=True):
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, np.stack([vector(row, DIM) for row in rows]))


def test_a_refused_batch_fails_alone(start: StartHost) -> None:
    host = start()
    refused, sound = host.submit(rows_of(doubles.REFUSE_ID)), host.submit(rows_of(1))
    with pytest.raises(EngineDied, match="a batch that is refused"):
        refused.result(ANSWER_S)
    assert sound.result(ANSWER_S).shape == (1, DIM)


def test_a_batch_that_was_sent_cannot_be_cancelled(start: StartHost) -> None:
    """Else its answer would have no future, and the thread that delivers all answers would end with an error."""
    host = start()
    future = host.submit(rows_of(1))
    assert not future.cancel()
    assert future.result(ANSWER_S).shape == host.submit(rows_of(2)).result(ANSWER_S).shape == (1, DIM)


# Death.


def test_a_killed_host_fails_all_batches_in_flight_and_all_later_batches(start: StartHost) -> None:
    host = start()
    hanging, killer = host.submit(rows_of(doubles.HANG_ID)), host.submit(rows_of(doubles.KILL_ID))
    for future in (hanging, killer):
        with pytest.raises(EngineDied, match="killed, no output"):
            future.result(ANSWER_S)
    with pytest.raises(EngineDied):
        host.submit(rows_of(1)).result(ANSWER_S)


def test_out_of_memory_is_recognised_in_the_hosts_last_lines(start: StartHost) -> None:
    host = start()
    with pytest.raises(EngineOutOfMemory, match="Tried to allocate 2.00 GiB"):
        host.submit(rows_of(doubles.NO_MEMORY_ID)).result(ANSWER_S)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (doubles.ASSERT_ID, "`RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
        (doubles.KILLED_ID, "`.* Subprocess scheduler_0 .* crashed with exit code -9"),
    ],
    ids=["a device assert", "a killed scheduler"],
)
def test_the_error_of_a_death_quotes_the_line_that_names_its_cause(start: StartHost, token: int, words: str) -> None:
    """Whatever it logged while it started."""
    with pytest.raises(EngineDied, match=f"SGLang died: {words}") as caught:
        start("open_chatty_double").submit(rows_of(token)).result(ANSWER_S)
    assert type(caught.value) is EngineDied


def test_what_was_answered_before_the_death_arrives(start: StartHost) -> None:
    host = start()
    assert host.submit(rows_of(doubles.LAST_WORDS_ID)).result(ANSWER_S).shape == (1, DIM)
    with pytest.raises(EngineDied):
        host.submit(rows_of(doubles.HANG_ID)).result(ANSWER_S)


@pytest.mark.parametrize("hanging_id", [doubles.HANG_ID, doubles.BLOCK_ID])
def test_close_returns_soon_though_a_batch_hangs(start: StartHost, hanging_id: int) -> None:
    host = start()
    host.wait_until_ready(START_S)
    future = host.submit(rows_of(hanging_id))
    time.sleep(0.2)
    began = time.monotonic()
    host.close()
    host.close()
    assert time.monotonic() - began < 300, "the batch hangs for ten minutes"
    with pytest.raises(EngineDied, match="closed"):
        future.result(ANSWER_S)
    assert not group_members(group_of(host))


def test_signals_of_the_terminal_change_nothing(start: StartHost) -> None:
    host = start()
    pid = host.wait_until_ready(START_S)["host_pid"]
    assert os.getsid(pid) == group_of(host) != os.getsid(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        for member in group_members(group_of(host)):
            os.kill(member, number)
    assert host.submit(rows_of(1)).result(ANSWER_S).shape == (1, DIM)


# Starts that fail.


def test_an_exception_at_the_start_is_quoted_and_final(start: StartHost) -> None:
    with pytest.raises(EngineError, match="RuntimeError: no weights here") as caught:
        start("open_double_that_raises").wait_until_ready(START_S)
    assert not isinstance(caught.value, EngineDied)
    assert caught.value.exit_code == 13 and "\n  | " in str(caught.value)


def test_out_of_memory_at_the_start_may_be_tried_again(start: StartHost) -> None:
    with pytest.raises(EngineOutOfMemory):
        start("open_double_without_memory").wait_until_ready(START_S)


@pytest.mark.parametrize("name", ["open_double_that_is_killed", "open_double_whose_scheduler_is_killed"])
def test_a_kill_at_the_start_may_be_tried_again(start: StartHost, name: str) -> None:
    with pytest.raises(EngineDied, match="while it started"):
        start(name).wait_until_ready(START_S)


def test_a_start_that_takes_too_long_is_given_up_with_its_last_words(start: StartHost) -> None:
    host = start("open_double_that_loads")
    wait_for(lambda: "loading" in host._log.last_words())
    with pytest.raises(EngineDied, match="not ready after . s: `loading`"):
        host.wait_until_ready(0.1)


# Nothing is left.


@pytest.mark.parametrize("name", ["open_double_with_child", "open_double_that_loads"])
def test_kill_9_of_our_process_leaves_no_orphan_and_no_file(name: str) -> None:
    code = f"""
import os, time
from embedcli.engines.sglang.process import Host
job = {{"factory": "tests.hosted_doubles:{name}", "arguments": {{}}, "dim": 16, "warm_up": []}}
host = Host(job, environment=os.environ)
if "loads" not in {name!r}:
    host.wait_until_ready(120)
print(host._group.process.pid, host._group.folder, flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as ours:
        assert ours.stdout is not None
        group, folder = ours.stdout.readline().split()
        wait_for(lambda: len(group_members(int(group))) == 3)
        semaphores = [SHARED_MEMORY / f"sem.loky-{pid}-abcd" for pid in group_members(int(group)) - {int(group)}]
        for semaphore in semaphores:
            semaphore.touch()
        ours.kill()
    assert wait_for_group(int(group), 60.0)
    assert not Path(folder).exists() and not any(semaphore.exists() for semaphore in semaphores)


def test_what_is_left_where_the_guard_is_killed_too_goes_at_the_next_start(start: StartHost) -> None:
    """Ray kills all children of a worker that it kills. A host that runs keeps what it has."""
    code = """
import os, time
from embedcli.engines.sglang.process import Host
job = {"factory": "tests.hosted_doubles:open_double", "arguments": {}, "dim": 16, "warm_up": []}
host = Host(job, environment=os.environ)
host.wait_until_ready(120)
print(host._group.process.pid, host._group.folder, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as theirs:
        assert theirs.stdout is not None
        group, folder = theirs.stdout.readline().split()
        present = start()
        assert Path(folder, LOG).exists()
        theirs.send_signal(signal.SIGSTOP)  # it may not tidy up
        os.kill(int(group), signal.SIGKILL)
        assert wait_for_group(int(group), 60.0)
        other = start()
        assert Path(folder, LOG).exists(), "its parent is alive, and may tell the last words"
        theirs.kill()
    last = start()
    assert not Path(folder).exists()
    for host in (present, other, last):
        host.wait_until_ready(START_S)
        assert host._log.path.exists()


def test_kill_9_leaves_no_file_though_the_host_notices_it_before_its_guard(tmp_path: Path) -> None:
    """When the guard looks, the host has already ended and the lifeline is closed."""
    code = """
import os
from embedcli.engines.sglang.guard import _guard
host = os.fork()
if not host:
    os._exit(0)
os.waitid(os.P_PID, host, os.WEXITED | os.WNOWAIT)
os.read(0, 1)
_guard(host, os.getppid())
"""
    (tmp_path / LOG).touch()
    command, environment = [sys.executable, "-c", code], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, start_new_session=True, env=environment, cwd=REPOSITORY
    ) as guard:
        assert guard.stdin is not None
        guard.stdin.close()
        assert guard.wait(60) == -signal.SIGKILL
    assert not tmp_path.exists()


def test_traces_that_cannot_be_removed_are_left_silently(tmp_path: Path) -> None:
    """Process ids are reused: another user's semaphore may have the name of one of ours."""
    stubborn, anothers = (SHARED_MEMORY / f"sem.loky-{os.getpid()}-{name}" for name in ("stubborn", "anothers"))
    stubborn.mkdir()
    anothers.touch()
    if os.getuid() == 0:
        os.chown(anothers, 65_534, 65_534)
    remove_traces(tmp_path, {os.getpid()})
    left = stubborn.exists(), anothers.exists()
    stubborn.rmdir()
    anothers.unlink(missing_ok=True)
    assert left == (True, os.getuid() == 0) and not tmp_path.exists()


def test_a_process_that_cannot_be_started_is_an_error_and_leaves_no_folder(tmp_path: Path) -> None:
    before = set(Path("/tmp").glob(f"embedcli-{os.getpid()}-*"))
    with pytest.raises(EngineDied, match="cannot be started: .*Argument list too long") as caught:
        Host({}, environment={**os.environ, "TOO_LONG": "x" * 10_000_000})
    assert "run the same command again" in caught.value.hint
    assert set(Path("/tmp").glob(f"embedcli-{os.getpid()}-*")) == before


def test_the_guard_takes_the_whole_group_with_it(start: StartHost) -> None:
    host = start("open_double_with_child")
    host.wait_until_ready(START_S)
    future = host.submit(rows_of(doubles.HANG_ID))
    os.kill(group_of(host), signal.SIGKILL)
    with pytest.raises(EngineDied):
        future.result(ANSWER_S)
    host.close()
    assert not group_members(group_of(host))


def test_a_host_that_ends_takes_its_children_with_it(start: StartHost) -> None:
    host = start("open_double_with_child")
    host.wait_until_ready(START_S)
    host.submit(rows_of(doubles.KILL_ID)).exception(ANSWER_S)
    assert wait_for_group(group_of(host), 60.0)


def test_sockets_log_and_shared_memory_are_removed(start: StartHost) -> None:
    host = start()
    host.wait_until_ready(START_S)
    (host._group.folder / "instance-0123456789ab").touch()
    ours = SHARED_MEMORY / "sglang_loads_0123456789ab_01234567.shm"
    anothers = SHARED_MEMORY / "sglang_loads_tmpother_01234567.shm"
    ours.touch()
    anothers.touch()
    host.close()
    anothers_is_there = anothers.exists()
    anothers.unlink()
    assert anothers_is_there and not ours.exists() and not host._group.folder.exists()


def test_semaphores_of_its_processes_are_removed_however_they_ended(start: StartHost) -> None:
    host = start("open_double_with_child")
    pid = host.wait_until_ready(START_S)["host_pid"]
    ours = [SHARED_MEMORY / f"sem.loky-{member}-abcd" for member in group_members(group_of(host))]
    anothers = SHARED_MEMORY / f"sem.loky-{os.getpid()}-abcd"
    for semaphore in [*ours, anothers]:
        semaphore.touch()
    os.kill(pid, signal.SIGKILL)
    assert wait_for_group(group_of(host), 60.0)
    host.close()
    anothers_is_there = anothers.exists()
    anothers.unlink()
    assert anothers_is_there and len(ours) == 3 and not any(semaphore.exists() for semaphore in ours)


def test_a_socket_in_the_hosts_folder_has_a_path_that_fits(start: StartHost) -> None:
    assert len(str(start()._group.folder / "tmpabcdefgh")) < 107


def test_our_threads_end_with_the_host(start: StartHost) -> None:
    host = start(show_log=lambda _: None)
    host.wait_until_ready(START_S)
    host.close()
    wait_for(lambda: not any(thread.name == "embedcli-host" for thread in threading.enumerate()))


# The log.


def test_every_line_of_the_log_is_shown_if_asked_for(start: StartHost) -> None:
    lines: list[str] = []
    host = start("open_double_that_raises", show_log=lines.append)
    with pytest.raises(EngineError):
        host.wait_until_ready(START_S)
    wait_for(lambda: "RuntimeError: no weights here" in lines)


def test_the_telling_line_is_the_cause_not_the_last_words() -> None:
    log = "W: a warning\ntorch.OutOfMemoryError: CUDA out of memory.\nValueError: later\nbye\n"
    assert telling_line(log) == "torch.OutOfMemoryError: CUDA out of memory."
    assert telling_line("a\nsglang.Oops.ValueError: so\n  at the end\n") == "sglang.Oops.ValueError: so"
    crash = "Fatal Python error: Segmentation fault\n\nThread 0x1:\n  File x\nExtension modules: a, b (total: 2)\n"
    assert telling_line(crash) == "Fatal Python error: Segmentation fault"
    left = "/usr/lib/python3.12/multiprocessing/resource_tracker.py:279: UserWarning: resource_tracker: 1 leaked\n"
    left += "  warnings.warn('resource_tracker: There appear to be %d '\n"
    assert telling_line(f"{doubles.KILLED}\nand then\n{left}") == doubles.KILLED
    assert telling_line(f"stopping\n{left}") == "stopping"
    assert telling_line(left) == telling_line("/my env/x.py:1: UserWarning: cut") == "killed, no output"
    assert telling_line("one\ntwo\n\n") == "two"
    assert telling_line("") == "killed, no output"
    assert quote("one\ntwo\n") == ": `two`\n  | one\n  | two"


def wait_for(holds: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
