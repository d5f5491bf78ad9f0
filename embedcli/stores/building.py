"""What a person reads while PostgreSQL builds the index of vectors: how far it is, and once what the server says of
its memory, with what to type.

In: the connection that builds, and a way to open another one, for the first is busy. Out: lines of the report.
Not here: which index is built (pgvector.py).
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedcli.errors import quoted
from embedcli.report import many

if TYPE_CHECKING:
    from embedcli.report import Report

    Connection = Any  # psycopg's, whose one door is pgvector.py

LOOK_EVERY_S = 1.0
_MIB = 1 << 20
_SPARE = 1.25
_FITTED = re.compile(r"maintenance_work_mem after (\d+) tuples")
_FACTS = "select pg_size_bytes(current_setting('maintenance_work_mem')), quote_ident(current_user)"
_STANDING = "select phase, blocks_done, blocks_total from pg_stat_progress_create_index where pid = %s"


@dataclass(frozen=True)
class Build:
    """An index of `rows` rows that is built with `memory_bytes` for `role`. `separator`: what stands before another
    parameter of the target's URL."""

    rows: int
    memory_bytes: int
    role: str
    separator: str

    def advice(self, notice: str) -> str:
        """What to type so that the server has memory enough; by what fitted in, where the notice says that."""
        fitted = _FITTED.search(notice)
        times = self.rows / max(1, int(fitted[1])) if fitted else 4
        size = f"{max(1, math.ceil(self.memory_bytes * times * _SPARE / _MIB))}MB"
        url = f"{self.separator}options=-c%20maintenance_work_mem%3D{size}"
        role = f"alter role {self.role} set maintenance_work_mem = '{size}'"
        return (
            "hint: where the server has that memory, stop this with Ctrl-C, and type the same command with"
            f" {quoted(url)} at the end of the target, or let PostgreSQL do `{role}` and type it as it is:"
            f" the {many(self.rows, 'row')} stay loaded"
        )


def facts(connection: Connection, rows: int, url: str) -> Build:
    row = connection.execute(_FACTS).fetchone()
    assert row is not None
    return Build(rows, int(row[0]), str(row[1]), "&" if "?" in url else "?")


@contextmanager
def reported(
    connection: Connection,
    build: Build,
    report: Report,
    *,
    another: Callable[[], Connection],
    errors: type[Exception],
) -> Iterator[None]:
    """While the block builds, its progress and the server's notices reach the report."""
    report.line(f"building the index of vectors, {many(build.rows, 'row')}")
    notices = _Notices(build, report)
    ended = threading.Event()

    def look() -> None:
        """A server that lets nobody look is built on all the same."""
        with suppress(errors), another() as looking:
            while not ended.wait(LOOK_EVERY_S):
                row = looking.execute(_STANDING, (connection.info.backend_pid,)).fetchone()
                if row is not None:
                    report.looking(_standing(*row))

    thread = threading.Thread(target=look, name="embedcli-building", daemon=True)
    connection.add_notice_handler(notices)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        connection.remove_notice_handler(notices)


class _Notices:
    """Warns with each notice once, and says after the first about memory what helps."""

    def __init__(self, build: Build, report: Report) -> None:
        self._build = build
        self._report = report
        self._seen: set[str] = set()

    def __call__(self, diagnostic: Any) -> None:
        parts = (diagnostic.message_primary, diagnostic.message_detail)
        text = ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part)
        if text in self._seen:
            return
        self._seen.add(text)
        self._report.warn(f"PostgreSQL says: {text}")
        if "maintenance_work_mem" in text:
            self._report.line(self._build.advice(text))


def _standing(phase: str, done: int | None, total: int | None) -> str:
    """`building the index of vectors: loading tuples, 42 %`"""
    share = f", {100 * (done or 0) // total} %" if total else ""
    return f"building the index of vectors: {phase.rpartition(': ')[2]}{share}"
