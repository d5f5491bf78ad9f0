"""How a run begins and ends: what is refused at once, the lock, the line of history, the second attempt past damage.

In: an index and what was asked. Out: contexts around the run, and the record of what it was begun with (Start).
Not here: what is done in between (ingest.py), the first steps of the work itself (begin_work.py).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from embedcli.errors import DamagedShard, EmbedcliError, Mismatch, StorageError, disk_error, quoted
from embedcli.index import lock, state
from embedcli.index.clearing import clear
from embedcli.index.damage import mend_probe
from embedcli.index.mirror.place import open_index
from embedcli.run.known import no_index
from embedcli.sources import walk
from embedcli.sources.streams import spooled
from embedcli.vault.disk import mode_of, set_mode

if TYPE_CHECKING:
    from embedcli.config import Options
    from embedcli.index.generations import Index
    from embedcli.report import Report, Summary
    from embedcli.run.tools import Tools


@dataclass(frozen=True)
class Start:
    """What a run is begun with: an index that is locked for it, and what was asked."""

    index: Index
    asked: Options
    tools: Tools
    report: Report
    lock: lock.Hold

    def is_over(self) -> bool:
        """Whether the time of the run is over."""
        return self.tools.seconds_left() <= 0


def index_of(asked: Options, tools: Tools, report: Report) -> Index:
    """The index that was asked for. Raises StorageError for a folder of somebody else."""
    index = open_index(asked.index, disk=tools.disk, warn=report.warn)
    index.check()
    return index


@contextmanager
def history_line(index: Index, summary: Summary) -> Iterator[None]:
    """Write one line of the history for this run, be it refused, failed or a bug; not where it made no index."""
    started = time.monotonic()
    error = ""
    try:
        yield
    except EmbedcliError as raised:
        summary.exit_code, error = raised.exit_code, str(raised)
        raise
    except OSError as raised:
        if (found := disk_error(raised)) is None:
            raise
        summary.exit_code, error = found.exit_code, str(found)
        raise found from raised
    finally:
        summary.elapsed_s = round(time.monotonic() - started, 3)
        ended_at = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"ended_at": ended_at, "host": platform.node(), **summary.to_json(), "error": error}
        with suppress(StorageError):
            if index.is_begun:
                state.append_run(index.state, line, index.disk)


NEW_MODE = 0o700
"""A new index is closed to other users: it holds the text of all its sources."""


def check_asked(index: Index, asked: Options) -> None:
    """Refuse what can be seen to be wrong before a folder is made. Raises NoIndex (exit 10), Mismatch (exit 12),
    InputError (exit 15)."""
    if not asked.names_sources and not index.is_there:
        raise no_index(index)
    if asked.mode is not None and index.is_begun and (found := mode_of(index.folder)) != asked.mode:
        bits = f"{asked.mode:o}"
        rights = ",".join(f"{who}={_RIGHTS[int(bit)]}" for who, bit in zip("ugo", bits, strict=True))
        raise Mismatch(
            f"index `{index.folder}` has the mode {found:o}, this run asks for {bits}",
            f"leave `--mode` out, or change it with `chmod -R {rights} {quoted(index.folder)}`",
        )
    for source in asked.sources:
        walk.root_of(source)


_RIGHTS = ("", "X", "w", "wX", "r", "rX", "rw", "rwX")
"""Of an octal digit, as chmod takes them: X is the right to enter folders."""


@contextmanager
def opened(index: Index, asked: Options, tools: Tools, report: Report) -> Iterator[Start]:
    """Hold the lock of the index, and in a file the stream that came in. Raises Locked (exit 11), StorageError."""
    with _locked(index, report, asked.mode) as held, spooled(asked, index.staging) as asked:
        yield Start(index, asked, tools, report, held)


@contextmanager
def _locked(index: Index, report: Report, mode: int | None) -> Iterator[lock.Hold]:
    """Hold the lock of the index, whose folder is made where it is new. A new index in which nothing was done is
    removed again. `mode`: who may read a new index, NEW_MODE if None."""
    made_folder = not index.is_there
    mode = None if index.is_begun else NEW_MODE if mode is None else mode
    index.disk.make_folder(index.folder, mode)
    if mode is not None:
        set_mode(index.folder, mode)
    with lock.hold(index.folder, index.disk, report.warn) as held:
        new = not index.is_begun
        report.line(f"{'new index' if new else 'index'} {index.shown}")
        try:
            index.create(mode)
            report.keep_progress(lambda progress: state.write_progress(index.state, progress))
            yield held
        except EmbedcliError:
            if new:
                _remove_if_empty(index, folder_too=made_folder)
            raise
        if new:  # a run whose time was over at once
            _remove_if_empty(index, folder_too=made_folder)


def _remove_if_empty(index: Index, *, folder_too: bool) -> None:
    """`generations` goes last: as long as it is there, the folder is known for an index."""
    if not index.is_empty:
        return
    index.disk.remove(index.state)
    with suppress(OSError):
        (index.folder / "lock").unlink()
        for folder in (*index.kept, index.folder) if folder_too else index.kept:
            folder.rmdir()


def again_past_damage(attempt: Callable[[], None], start: Start) -> None:
    """Make the attempt; a shard found damaged on the way is noted, and the next attempt reads its documents again."""
    index = start.index
    met: set[str] = set()
    while True:
        try:
            return attempt()
        except DamagedShard as error:
            if error.name in met:
                raise
            met.add(error.name)
            start.report.warn(f"{error}; its documents are read again")
            state.note_damaged(index.state, {error.name}, index.disk)


def tidy(start: Start) -> None:
    """Remove what no reader and no resumed run needs, and put back what an older generation still has."""
    clear(start.index, keep=start.asked.keep_generations)
    mend_probe(start.index)
