"""What this machine can do: the whole `ingest`, its engine alone and sentence-transformers on the same chunks.

In: a folder of documents (or generated ones), the tools of a real run. Out: Figures. A first run over one line opens
the engine, the second finds it open: it counts from the first documents read to the published generation, so that no
reading hides behind the loading, which is told apart.
Not here: printing (cli/machine.py), the reference's own process (bench_reference.py).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from embedcli.config import IndexSettings, Options
from embedcli.engines.contract import Engine, batch_cost, pack
from embedcli.engines.nvml import Card, read_cards
from embedcli.errors import EngineError
from embedcli.ingest import ingest
from embedcli.models.folder import Model
from embedcli.models.tokenizer import load_tokenizer
from embedcli.report import Progress, Report
from embedcli.run.tools import Tools

SCRIPTS = (
    "abcdefghijklmnoprstuvwy",
    "абвгдежзиклмнопрстуфхя",
    "的一是在不了有和人这中大为上个国我以要他",
    "あいうえおかきくけこさしすせそ",
)
REFERENCE_TOKENS = {"cpu": 60_000, "cuda": 1_000_000}
"""Enough for half a minute or less of sentence-transformers."""

ALONE_TOKENS = {"cpu": 300_000, "cuda": 12_000_000}
REFERENCE_TIMEOUT_S = 900.0
POLL_S = 0.3


@dataclass(frozen=True)
class Figures:
    """Rates in tokens/s, special tokens counted. `busy` is the share of its time in which the engine had work,
    `padding` of its tokens that were none of ours; `no_reference` says why a reference that was asked for is None."""

    model: str
    device: str
    dim: int
    chunks: int
    tokens: int
    text_bytes: int
    load_s: float
    whole: float
    alone: float
    reference: float | None
    no_reference: str
    busy: float
    padding: float
    peak_gpu_bytes: int | None
    peak_rss_bytes: int

    def hours(self, corpus_gb: float) -> float:
        """For a corpus of so much text, at the rate of the whole run."""
        return corpus_gb * 1e9 * (self.tokens / max(1, self.text_bytes)) / max(self.whole, 1e-9) / 3600


def generate(folder: Path, size_bytes: int, *, seed: int = 0) -> None:
    """Documents from one line to a book in four scripts: most chunks are full, tails are of any length.

    The last one is cut: a book would be several times what was asked for.
    """
    chooser = np.random.default_rng(seed)
    vocabularies = [_vocabulary(chooser, letters) for letters in SCRIPTS]
    written = number = 0
    while written < size_bytes:
        words = vocabularies[number % 7 % len(vocabularies)]
        paragraphs = chooser.integers(3, 120, max(1, int(chooser.lognormal(2.0, 1.3))))
        text = "\n\n".join(" ".join(chooser.choice(words, count)) + "." for count in paragraphs)
        data = text.encode()[: size_bytes - written].decode(errors="ignore").encode() or b"."
        (folder / f"{number:06d}.txt").write_bytes(data)
        written, number = written + len(data), number + 1


def _vocabulary(chooser: np.random.Generator, letters: str) -> np.ndarray:
    longest = 9 if ord(letters[0]) < 0x3000 else 3
    return np.array(["".join(chooser.choice(list(letters), size)) for size in chooser.integers(1, longest, 4_000)])


class Watched:
    """An engine, timed: between its first list and its last answer it had work or waited for us. It is not closed by
    the run that it serves."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.busy_s = 0.0
        self._in_flight = 0
        self._since = self.first_at = self.last_at = 0.0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        with self._lock:
            now = time.perf_counter()
            self.first_at = self.first_at or now
            self._since = self._since if self._in_flight else now
            self._in_flight += 1
        future = self.engine.submit(rows)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[np.ndarray]) -> None:
        with self._lock:
            self.last_at = time.perf_counter()
            self._in_flight -= 1
            if not self._in_flight:
                self.busy_s += self.last_at - self._since

    def close(self) -> None:
        """Left to the Opener."""


class Opener:
    """Opens the engine of the first run and gives it to the next one too; a run that asks again had it die."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._kept: Watched | None = None
        self.watched: list[Watched] = []
        self.model: Model | None = None
        self.load_s = 0.0

    def __call__(self, model: Model, settings: IndexSettings, device: str) -> Watched:
        if self._kept is None:
            self.close()
            began = time.perf_counter()
            self.watched.append(Watched(self._tools.open_engine(model, settings, device)))
            self.load_s = self.load_s or time.perf_counter() - began
        else:
            self.watched, self._kept = [self._kept], None
        self.model = model
        return self.watched[-1]

    def keep(self) -> None:
        """The next run gets this engine, its times at zero."""
        self._kept = Watched(self.watched[-1].engine)

    @property
    def busy(self) -> float:
        """Of the time between the first list and the last answer, over all engines of the run."""
        elapsed_s = self.watched[-1].last_at - self.watched[0].first_at
        return sum(watched.busy_s for watched in self.watched) / max(elapsed_s, 1e-9)

    def close(self) -> None:
        for watched in self.watched:
            watched.engine.close()


class Peak:
    """Most memory in use on one of these cards, polled; None where there is none."""

    def __init__(
        self,
        cards: Sequence[int] = (0,),
        *,
        read: Callable[[Sequence[int]], list[Card]] = read_cards,
        every_s: float = POLL_S,
    ) -> None:
        self.peak_bytes: int | None = None
        self._cards, self._read, self._every_s = cards, read, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                used = [card.total_bytes - card.free_bytes for card in self._read(self._cards)]
            except EngineError:
                return
            self.peak_bytes = max(self.peak_bytes or 0, *used)

    def stop(self) -> int | None:
        self._over.set()
        self._thread.join()
        return self.peak_bytes


class _Clock(Report):
    """A report that only remembers since when vectors are computed."""

    since_s = 0.0

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        self.since_s = progress.embedding_since or self.since_s


def measure(
    asked: Options, *, tools: Tools, reference: bool, say: Callable[[str], None], cards: Sequence[int] = (0,)
) -> Figures:
    """Run `ingest` of `asked` into its (new) index, then the engine alone, then the reference. Raises EmbedcliError."""
    opener, peak = Opener(tools), Peak(cards)
    with ExitStack() as at_the_end:
        at_the_end.callback(opener.close)
        at_the_end.callback(peak.stop)
        watching = replace(tools, open_engine=opener)
        _open(asked, watching)
        opener.keep()
        clock = _Clock()
        summary = ingest(asked, tools=watching, report=clock)
        whole_s = time.monotonic() - clock.since_s
        say(f"whole: {summary.tokens['embedded']:,} tokens in {whole_s:.0f} s")
        assert opener.model is not None
        texts: list[str] = ds.dataset(asked.index / "current/vectors").to_table(columns=["text"])["text"].to_pylist()
        engine = opener.watched[-1].engine
        rows = _rows(texts, opener.model, most=ALONE_TOKENS["cuda" if engine.device.startswith("cuda") else "cpu"])
        alone, padding = _alone(engine, rows)
        say(f"engine alone: {alone:,.0f} tokens/s")
    device = tools.device_kind(asked)
    rate = _reference(texts, rows, opener.model, device) if reference else ""
    return Figures(
        model=summary.model or opener.model.name,
        device=device,
        dim=summary.dim or 0,
        chunks=summary.chunks["total"],
        tokens=summary.tokens["embedded"],
        text_bytes=sum(len(text.encode()) for text in texts),
        load_s=opener.load_s,
        whole=summary.tokens["embedded"] / whole_s,
        alone=alone,
        reference=None if isinstance(rate, str) else rate,
        no_reference=rate if isinstance(rate, str) else "",
        busy=opener.busy,
        padding=padding,
        peak_gpu_bytes=peak.peak_bytes,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _open(asked: Options, tools: Tools) -> None:
    """A run over one line, under the settings of the one that is to be measured."""
    with tempfile.TemporaryDirectory(prefix="embedcli-bench-") as folder:
        (Path(folder) / "line.txt").write_text("A line.\n")
        first = replace(asked, index=Path(folder) / "index", sources=(f"{folder}/line.txt",))
        ingest(first, tools=tools, report=Report(quiet=True, stream=StringIO()))


def _rows(texts: list[str], model: Model, *, most: int) -> list[np.ndarray]:
    """What the engine is fed for the first of the texts, `most` tokens or as many as there are.

    The texts are brought into another order: long and short ones mixed.
    """
    np.random.default_rng(0).shuffle(texts)
    row_of = load_tokenizer(model.folder, prompt=model.prompt).row_of
    rows: list[np.ndarray] = []
    tokens = 0
    for text in texts:
        if tokens >= most:
            break
        rows.append(row_of(text))
        tokens += rows[-1].size
    return rows


def _first(rows: Sequence[np.ndarray], tokens: int) -> int:
    """How many of the rows make so many tokens; one at least."""
    ends = np.cumsum([row.size for row in rows])
    return min(len(rows), int(np.searchsorted(ends, tokens)) + 1)


def _alone(engine: Engine, rows: Sequence[np.ndarray]) -> tuple[float, float]:
    """(tokens/s, padding) of the engine fed from memory, its queue kept full."""
    lengths = [row.size for row in rows]
    lists = pack(lengths, batch_tokens=engine.batch_tokens, batch_rows=engine.batch_rows, padded=engine.padded)
    device_tokens = sum(batch_cost([lengths[i] for i in one], padded=engine.padded) for one in lists)
    waiting: deque[Future[np.ndarray]] = deque()
    started = time.perf_counter()
    for one in lists:
        if len(waiting) >= engine.depth:
            waiting.popleft().result()
        waiting.append(engine.submit([rows[i] for i in one]))
    for future in waiting:
        future.result()
    return sum(lengths) / (time.perf_counter() - started), 1 - sum(lengths) / device_tokens


def _reference(texts: Sequence[str], rows: Sequence[np.ndarray], model: Model, device: str) -> float | str:
    """sentence-transformers in a process of its own, so that its memory is gone afterwards; or why it cannot."""
    count = _first(rows, REFERENCE_TOKENS.get(device, REFERENCE_TOKENS["cpu"]))
    order = json.dumps({"folder": str(model.folder), "device": device, "texts": list(texts[:count])})
    command = [sys.executable, "-m", "embedcli.verbs.bench_reference"]
    try:
        ran = subprocess.run(command, input=order, capture_output=True, text=True, timeout=REFERENCE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"not done after {REFERENCE_TIMEOUT_S:.0f} s"
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or ["killed without a word"])[-1]
    return sum(row.size for row in rows[:count]) / float(ran.stdout)
