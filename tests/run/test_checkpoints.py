"""When work becomes durable: a run that is killed early has not worked for nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from embedcli.errors import StorageError
from embedcli.index.documents import Mark
from embedcli.index.outcomes import Outcome, Stored
from embedcli.index.staging import Finished
from embedcli.run.checkpoints import FIRST_AFTER_S, Checkpoints, Rhythm
from tests.faults import ClockJumps


def due_at(rhythm: Rhythm, clock: ClockJumps, *, until: int) -> list[int]:
    """The seconds in which a checkpoint was written, of a run that always has something new to store."""
    written = []
    for second in range(until):
        clock.now = float(second)
        if rhythm.is_due(0, anything=True):
            rhythm.written()
            written.append(second)
    return written


def test_the_first_checkpoint_comes_after_ten_seconds_and_then_one_a_minute() -> None:
    clock = ClockJumps()
    assert due_at(Rhythm(every_bytes=100, every_s=60.0, clock=clock), clock, until=200) == [10, 71, 132, 193]


def test_whoever_asks_for_more_frequent_checkpoints_gets_the_first_as_early() -> None:
    clock = ClockJumps()
    assert due_at(Rhythm(every_bytes=100, every_s=3.0, clock=clock), clock, until=9) == [3, 7]


def test_the_time_runs_from_the_first_vector_not_from_the_loading_of_the_model() -> None:
    clock = ClockJumps()
    rhythm = Rhythm(every_bytes=100, every_s=60.0, clock=clock)
    clock.now = 300.0
    assert not rhythm.is_due(0, anything=False)
    assert not rhythm.is_due(0, anything=True), "the engine has only just answered"
    clock.now += FIRST_AFTER_S
    assert rhythm.is_due(0, anything=True)


def test_many_finished_bytes_do_not_wait() -> None:
    assert Rhythm(every_bytes=100, every_s=60.0, clock=ClockJumps()).is_due(100, anything=True)


# ---- what a slice of a cluster waits for


class SlowDisk:
    """Stands for a staging folder and for those who hear of it. Nothing is durable before it `may_end`."""

    shards: dict[str, Any] = {}
    has_fresh = False
    refusal: StorageError | None = None

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.begun: list[Sequence[Finished]] = []
        self.durable: list[Finished] = []

    def checkpoint(self, finished: Sequence[Finished], _: None) -> Stored:
        self.begun.append(finished)
        self.has_begun.set()
        assert self.may_end.wait(120.0)
        if self.refusal is not None:
            raise self.refusal
        return Stored([item.outcome for item in finished], [])

    def store(self, stored: Stored) -> None:
        self.durable += [Finished(outcome, None, None) for outcome in stored.outcomes]

    def hand_over(self) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        return np.zeros((2, 0), np.uint64), np.zeros((0, 8), np.float32), []

    def stored(self) -> None:
        """Nobody waits for a vector here."""


def finished(name: str) -> Finished:
    return Finished(Outcome(None, mark=Mark(("root", name), {"status": "indexed"})), None, None)


def test_what_is_awaited_is_stored_at_once_and_nobody_waits_for_the_disk() -> None:
    disk: Any = SlowDisk()
    with Checkpoints(disk, disk, disk, disk, every_bytes=1 << 30, every_s=1e9) as checkpoints:
        for name in ("a", "b", "c"):
            checkpoints.add(finished(name))
            checkpoints.settle()
            checkpoints.write_if_due(is_awaited=True)
        assert disk.has_begun.wait(120.0)
        assert [len(begun) for begun in disk.begun] == [1] and not disk.durable
        disk.may_end.set()
        until_s = time.monotonic() + 120.0
        while not disk.durable and time.monotonic() < until_s:
            checkpoints.settle()
        assert len(disk.durable) == 1
        checkpoints.write_if_due(is_awaited=True)
        checkpoints.write_if_due(is_awaited=True)
    assert [len(begun) for begun in disk.begun] == [1, 2] and len(disk.durable) == 3


def test_what_the_disk_refused_is_raised_when_it_is_counted() -> None:
    disk: Any = SlowDisk()
    disk.refusal = StorageError("the disk is full")
    disk.may_end.set()
    with Checkpoints(disk, disk, disk, disk, every_bytes=1 << 30, every_s=1e9) as checkpoints:
        checkpoints.add(finished("a"))
        checkpoints.write_if_due(is_awaited=True)
        until_s = time.monotonic() + 120.0
        with pytest.raises(StorageError, match="full"):
            while time.monotonic() < until_s:
                checkpoints.settle()
    assert not disk.durable
