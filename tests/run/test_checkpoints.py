"""When work becomes durable: a run that is killed early has not worked for nothing."""

from __future__ import annotations

from embedcli.run.checkpoints import FIRST_AFTER_S, Rhythm
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
