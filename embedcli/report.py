"""Messages and progress for people on stderr, and the Summary that `--json` prints.

In: counts and events as they happen. Out: lines, a live display on a terminal, elsewhere one progress line a minute.
Not here: which exit code an error has (errors.py).
"""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

from embedcli.records import Source

Say = Callable[[str], None]
"""A function that prints one line for people."""

LINE_EVERY_S = 60.0
KEEP_EVERY_S = 5.0
BAR_WIDTH = 10


@dataclass
class Summary:
    """The result of an ingest, as `--json` prints it. Durations in seconds, sizes in bytes."""

    index: str
    exit_code: int = 0
    generation: int | None = None
    complete: bool = False
    model: str = ""
    dim: int = 0
    fingerprint: str = ""
    sources: dict[str, int] = field(default_factory=dict)
    indexed: int = 0
    failures_new: int = 0
    news: list[dict[str, str]] = field(default_factory=list)
    """The first sources that failed, went stale or partial as they had not before: uri, status, reason."""
    failures: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)
    chunks: dict[str, int] = field(default_factory=lambda: {"total": 0, "embedded": 0, "reused": 0})
    tokens: dict[str, int] = field(default_factory=lambda: {"embedded": 0, "total": 0})
    replaced: dict[str, int] = field(default_factory=lambda: {"sources": 0, "characters": 0})
    """Of what this run has read: bytes that are no text, each read as U+FFFD."""

    left: dict[str, int] = field(default_factory=lambda: {"sources": 0, "bytes": 0})
    """What a run whose time was over has left for the next one."""

    bytes_rewritten: int = 0
    elapsed_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: looking, reading, loading, embedding (the engine at work), publishing; some go on side by side."""
    tokens_per_s: float = 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds of the block for this stage."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - started_s, 3)

    @property
    def idle(self) -> bool:
        """Whether no source was added, changed or removed and nothing was embedded."""
        moves = (self.sources[name] for name in ("new", "changed", "moved", "gone", "excluded"))
        return not (any(moves) or self.chunks["embedded"] or self.chunks["reused"])

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        return {"exit_code": data.pop("exit_code"), **data}


@dataclass(frozen=True)
class Pace:
    """How long the engine was at work; how many tokens were read, those included whose vectors were known."""

    busy_s: float = 0.0
    tokens_read: int = 0


@dataclass
class Progress:
    """The progress of a run. Times are of time.monotonic.

    `loading_since`: when the engine began to load, for the first time or after a restart; None while it is ready.
    `embedding_since`: when the engine was first ready; None before. `tokens_left`: still to be embedded, an estimate.
    """

    documents: int = 0
    documents_total: int = 0
    bytes_read: int = 0
    bytes_total: int = 0
    chunks: int = 0
    tokens: int = 0
    tokens_left: float = 0.0
    pace: Pace = Pace()
    phase: str = "starting"
    started: float = field(default_factory=time.monotonic)
    loading_since: float | None = None
    embedding_since: float | None = None

    @property
    def documents_left(self) -> int:
        return self.documents_total - self.documents

    @property
    def loading(self) -> bool:
        return self.loading_since is not None

    @property
    def tokens_per_s(self) -> float:
        if self.embedding_since is None:
            return 0.0
        return self.tokens / max(time.monotonic() - self.embedding_since, 1e-9)

    @property
    def eta_s(self) -> float | None:
        """The remaining seconds, an estimate; None before there is anything to go by."""
        return self.eta_at(time.monotonic())

    def eta_at(self, now_s: float) -> float | None:
        """By the tokens that are left; where nothing had to be embedded so far, by the bytes of finished documents.

        The engine takes so long for a token that it embeds; for each that is read, its vector known or not, it waits.
        A run that goes on after a stop reads for minutes what it needs not embed.
        """
        if self.loading:
            return None
        elapsed_s = now_s - (self.embedding_since or self.started)
        if self.tokens:
            busy_s = self.pace.busy_s or elapsed_s
            waited_s = max(0.0, elapsed_s - busy_s)
            return self.tokens_left * (busy_s / self.tokens + waited_s / max(self.tokens, self.pace.tokens_read))
        if not self.bytes_read or not self.bytes_total or (self.tokens_left and self.embedding_since is not None):
            return None
        return elapsed_s * (self.bytes_total - self.bytes_read) / self.bytes_read

    @property
    def share(self) -> float:
        """How much of the work is done, from 0 to 1."""
        if self.tokens:
            return self.tokens / (self.tokens + self.tokens_left)
        return self.bytes_read / max(1, self.bytes_total)

    def line(self) -> str:
        """The progress as one line, the most important part first, as a narrow terminal cuts the end."""
        if self.loading_since is not None:
            waited = duration(time.monotonic() - self.loading_since)
            return f"{self.phase}: {waited}; reading goes on, {self.documents:,}/{self.documents_total:,} documents"
        eta = f", {duration(self.eta_s)} to go" if self.eta_s is not None else ""
        done = f"{self.documents:,}/{self.documents_total:,} documents, {self.tokens_per_s:,.0f} tokens/s"
        return f"{self.phase}{eta}: {done}, {many(self.chunks, 'chunk')}"

    def to_json(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "documents_total": self.documents_total,
            "chunks": self.chunks,
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens_per_s, 1),
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "phase": self.phase,
        }


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds or 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line for people, on stderr by default. If the reader has closed the stream, all further lines are dropped
    and the work continues."""
    stream = stream or sys.stderr
    try:
        print(text, file=stream, flush=True)
    except OSError:
        silence(stream)


def say_warning(text: str) -> None:
    """Print a warning on stderr."""
    say(f"warning: {text}")


def silence(stream: TextIO) -> None:
    """Send what is buffered or written later to /dev/null: otherwise Python would flush it at exit, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_SKIPPED = {  # with the kinds of files named, or without
    "needs_extra": ("need the extra office", True),
    "unsupported": ("unsupported", True),
    "archive": ("archived", True),
    "not_text": ("binary", False),
    "empty": ("empty", False),
    "too_large": ("too large", False),
    "not_a_file": ("no file", False),
    "portfolio": ("portfolio", False),
    "cold_storage": ("in cold storage", False),
    "outside": ("linked from outside the roots (`--follow-links` reads them)", False),
}
MOST_KINDS_SHOWN = 5


def skipped_line(skipped: dict[str, dict[str, int]]) -> str:
    """`8 skipped: 6 .doc unsupported, 2 binary`, of the counts by reason and suffix; empty for none."""
    parts = []
    for reason, (words, by_kind) in _SKIPPED.items():
        counts = sorted(skipped.get(reason, {}).items(), key=lambda item: (-item[1], item[0]))
        shown = counts[:MOST_KINDS_SHOWN] if by_kind else []
        parts += [f"{count:,} {kind} {words}" for kind, count in shown]
        rest = sum(count for _, count in counts[len(shown) :])
        parts += [f"{rest:,} {'other ' if shown else ''}{words}"] if rest else []
    total = sum(sum(counts.values()) for counts in skipped.values())
    return f"{total:,} skipped: {', '.join(parts)}" if total else ""


def many(count: int, noun: str) -> str:
    """`1 chunk`, `2,000 chunks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Report:
    """Messages and progress on `stream`; a live display only where it is a terminal. `log` gets every line too."""

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, stream: TextIO | None = None, log: Say | None = None
    ) -> None:
        self._quiet = quiet
        self.verbose = verbose
        self._stream = stream or sys.stderr
        self._log = log
        self._live: Any = None
        self._last_line_s = time.monotonic()
        self._keep: Callable[[dict[str, Any]], None] | None = None
        self._last_kept_s = -KEEP_EVERY_S

    def keep_progress(self, keep: Callable[[dict[str, Any]], None]) -> None:
        """Call `keep` with the progress as JSON every few seconds, so that `status` can show it."""
        self._keep = keep

    def line(self, text: str) -> None:
        """Print a line for people; `--quiet` drops it."""
        self._write(text, show=not self._quiet)

    def warn(self, text: str, *, is_news: bool = False) -> None:
        """Print a warning; `--quiet` leaves it out, unless it `is_news`. One that comes twice is printed twice."""
        self._write(f"warning: {text}", show=is_news or not self._quiet)

    def news(self, text: str) -> None:
        """Print what somebody has to know in the morning, also with `--quiet`."""
        self._write(text, show=True)

    def note(self, text: str) -> None:
        """Write a line to the log file alone."""
        self._write(text, show=False)

    def _write(self, text: str, *, show: bool) -> None:
        if self._log is not None:
            self._log(text)
        if not show:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text, self._stream)

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        """Show the progress: on a terminal at once, elsewhere as one line a minute. May be called often.

        With `at_once` the progress is also given to the `keep` function now, even if it was a moment ago.
        """
        now_s = time.monotonic()
        if self._keep is not None and (at_once or now_s - self._last_kept_s >= KEEP_EVERY_S):
            self._last_kept_s = now_s
            self._keep({"pid": os.getpid(), **progress.to_json()})
        self._show(progress.line(), share=progress.share)

    def looking(self, text: str) -> None:
        """Show what the run is doing while the amount of work is not known yet."""
        self._show(text, share=None)

    def _show(self, text: str, *, share: float | None) -> None:
        if self._quiet:
            return
        if not self._stream.isatty():
            if time.monotonic() - self._last_line_s >= LINE_EVERY_S:
                self._last_line_s = time.monotonic()
                self.line(text)
            return
        if self._live is None:
            self._live = _live(self._stream)
            self._live.start()
        self._live.update(_bar(text, share))

    def close(self) -> None:
        """Remove the live display; later lines are plain text."""
        if self._live is not None:
            self._live.update("")
            self._live.stop()
            self._live = None


def _live(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(file=stream), refresh_per_second=4, transient=True)


def _bar(text: str, share: float | None) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1), expand=False)
    bar = ProgressBar(total=1.0, completed=share or 0.0, width=BAR_WIDTH, pulse=share is None)
    grid.add_row(bar, Text(text, no_wrap=True, overflow="ellipsis"))
    return grid


LARGEST_SHOWN = 10


class Largest:
    """The line printed after a walk: how many files and bytes, and which of the new files are the largest.

    With `every` known files are named too.
    """

    def __init__(self, *, every: bool = False) -> None:
        self.files = 0
        self._every = every
        self._bytes = 0
        self._heap: list[tuple[int, int, str]] = []

    def add(self, source: Source, *, new: bool = True) -> None:
        """Count a source; one without a stat has no bytes."""
        size = source.stat.size if source.stat else 0
        self.files += 1
        self._bytes += size
        if not (new or self._every):
            return
        # the count decides between files of equal size: the earlier one ranks higher
        item = (size, -self.files, source.path)
        if len(self._heap) < LARGEST_SHOWN:
            heapq.heappush(self._heap, item)
        elif item > self._heap[0]:
            heapq.heapreplace(self._heap, item)

    def line(self) -> str:
        """`12 files, 3.4 MB; largest: white-paper.md 1.2 MB, ...`"""
        total = f"{many(self.files, 'file')}, {megabytes(self._bytes)}"
        largest = ", ".join(f"{one_line(path)} {megabytes(size)}" for size, _, path in sorted(self._heap)[::-1])
        return f"{total}; largest: {largest}" if largest else total


def megabytes(size_bytes: int) -> str:
    """`512 B`, `3.4 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def one_line(text: str) -> str:
    """`text` with line ends and control characters replaced: a file name may contain them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
