"""Flags of `ingest` for runs from cron: how long a run may take, how far it stands back, what it leaves for others.

In: the values as typed. Out: checked values, or UsageError (exit 2); the log file; a lower priority.
Not here: the metrics themselves (metrics.py), ending in time (run/pace/time_limit.py).
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.errors import StorageError, UsageError
from embedcli.report import Say, say_warning

if TYPE_CHECKING:
    from embedcli.run.pace.forecast import Forecast

Deadline = Annotated[
    str | None,
    typer.Option(
        help="End by this time of the day, such as 06:00, or date, such as 2026-01-31T06:00; the next run goes on. A"
        " time of the day that passed less than 6 hours ago has passed.",
        metavar="TIME",
    ),
]
TimeLimit = Annotated[
    str | None, typer.Option(help="End within this time, such as 4h, 90m or 1h30m; the next run goes on.")
]
RequireComplete = Annotated[
    bool, typer.Option("--require-complete", help="Exit with 3 when something is left for the next run.")
]
Nice = Annotated[
    int | None,
    typer.Option(help="Stand back behind other processes: 1 to 19, as of nice(1); for all processes of the run."),
]
MetricsFile = Annotated[
    Path | None, typer.Option(help="Write the figures of the run to this file, in Prometheus text format.")
]
LogFile = Annotated[
    Path | None,
    typer.Option(help="Also write every line to this file, with the time; it may be rotated during the run."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Change nothing: say what is new, how many tokens, and how long it will take."),
]

PASSED_WITHIN = timedelta(hours=6)
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


# ---- how long a run may take


def seconds_left(deadline: str | None, time_limit: str | None) -> Callable[[], float]:
    """What tells how long the run may still take, from now on. Raises UsageError.

    A deadline is kept on the clock on the wall, a time limit on one that nobody sets.
    """
    ends_at = math.inf if deadline is None else deadline_at(deadline, datetime.now()).timestamp()
    ends_s = math.inf if time_limit is None else time.monotonic() + duration_s(time_limit)
    return lambda: min(ends_at - time.time(), ends_s - time.monotonic())


def deadline_at(text: str, now: datetime) -> datetime:
    """The moment that `--deadline` names. Raises UsageError.

    A machine that was off at night and catches up at nine is not to work until tomorrow's six o'clock.
    """
    try:
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            today = datetime.combine(now.date(), datetime.strptime(text, "%H:%M").time(), tzinfo=now.tzinfo)
            return today if today > now - PASSED_WITHIN else _next_day(today)
        if "T" in text or " " in text.strip():
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"`--deadline {text}` is no time", "give a time of the day, `06:00`, or `2026-01-31T06:00`")


def _next_day(moment: datetime) -> datetime:
    """The same time on the clock; the day may have 23 hours or 25."""
    return datetime.combine(moment.date() + timedelta(days=1), moment.time(), tzinfo=moment.tzinfo)


def duration_s(text: str) -> float:
    """The seconds of `4h`, `90m`, `1h30m`. Raises UsageError."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(
            f"`--time-limit {text}` is no duration", "give hours, minutes or seconds: `4h`, `90m`, `1h30m`"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


# ---- a dry run


def forecast_lines(found: Forecast) -> list[str]:
    """What a run would do, for people."""
    from embedcli.report import duration, many, megabytes

    counts = ", ".join(f"{count:,} {name}" for name, count in found.sources.items() if count)
    lines = [f"a run would find {counts or 'nothing'}; {megabytes(found.bytes)} to read"]
    if found.unreadable:
        lines.append("not readable: " + ", ".join(f"{count:,} {reason}" for reason, count in found.unreadable.items()))
    chunks, tokens = many(found.chunks["embedded"], "chunk"), many(found.tokens["embedded"], "token")
    lines.append(f"to embed: {chunks}, {tokens}; {many(found.chunks['reused'], 'chunk')} known")
    if not found.complete:
        lines.append("the time was over before all was read: there is more")
    elif found.expected_s is None:
        lines.append("how long that takes is not known: no run of this index has embedded anything on this machine")
    else:
        rate = f", at the {found.tokens_per_s:,.0f} tokens/s of its last runs" if found.tokens["embedded"] else ""
        lines.append(f"expected: {duration(found.expected_s)}{rate}")
    return lines


# ---- how far it stands back


def stand_back(nice: int | None) -> None:
    """Lower the priority of this process, and with it that of every process and thread that it starts from now on.

    Raises UsageError.
    """
    if nice is None:
        return
    if not 1 <= nice <= 19:
        raise UsageError(f"`--nice` must be from 1 to 19, not `{nice}`", "`--nice 10` is what batch jobs use")
    os.nice(nice)


# ---- the log


class _RaisingHandler(WatchedFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        raise  # noqa: PLE0704 - it is called where the exception is handled


@contextmanager
def opened_log(path: Path | None) -> Iterator[Say | None]:
    """What writes a line into the log file; None where there is to be none. Raises StorageError."""
    if path is None:
        yield None
        return
    log = _Log(path)
    try:
        yield log
    finally:
        log.close()


class _Log:
    """Lines with their time, at the end of a file. When the file is renamed or removed, the next line begins a new one;
    while none can be written, lines are dropped, and the first failure is a warning on stderr."""

    def __init__(self, path: Path) -> None:
        """Raises StorageError."""
        self._path = path
        self._failed = False
        try:
            self._handler = _RaisingHandler(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            hint = "name another file with `--log-file`"
            raise StorageError(f"cannot write `{path}`: {error.strerror}", hint) from error
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def close(self) -> None:
        with suppress(OSError):  # the disk is full: the exit code is that of the run
            self._handler.close()

    def __call__(self, line: str) -> None:
        try:
            self._handler.emit(logging.makeLogRecord({"msg": line}))
        except OSError as error:
            if not self._failed:
                say_warning(f"cannot write `{self._path}`: {error.strerror}; the run goes on without it")
            self._failed = True
