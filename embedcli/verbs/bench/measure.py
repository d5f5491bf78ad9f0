"""Measure this machine: the whole `ingest`, its engine alone and sentence-transformers on the same chunks.

In: a folder of documents (or generated ones), the tools of a real run. Out: Figures. A first run over one line of text
opens the engine and a second run reuses it. Only the second is timed, from its first document to the published
generation: otherwise documents could be read while the model loads, at no cost. Loading is timed separately.
Not here: printing (cli/machine.py), the process of the reference (reference.py), the cost of a run over workers
(workers.py).
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
from embedcli.report import Progress, Report, Summary
from embedcli.run.tools import Tools
from embedcli.verbs.bench.workers import coordinator_cpu_s

SCRIPTS = (
    "abcdefghijklmnoprstuvwy",
    "абвгдежзиклмнопрстуфхя",
    "的一是在不了有和人这中大为上个国我以要他",
    "あいうえおかきくけこさしすせそ",
)
REFERENCE_TOKENS = {"cpu": 60_000, "cuda": 1_000_000}
"""How many tokens sentence-transformers gets: half a minute of work or less."""

ALONE_TOKENS = {"cpu": 300_000, "cuda": 12_000_000}
REFERENCE_TIMEOUT_S = 900.0
POLL_S = 0.3


@dataclass(frozen=True)
class Figures:
    """Rates in tokens/s, special tokens included.

    `busy` is the share of the time in which the engine had work, `padding` the share of its tokens that were padding.
    `no_reference` says why `reference` is None although it was asked for. `run_cpu_s_per_million`: what a million
    tokens cost the run itself where workers do the rest, in CPU seconds of its thread.
    """

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
    run_cpu_s_per_million: float | None = None

    def hours(self, corpus_gb: float) -> float:
        """The hours for a corpus of `corpus_gb` GB of text, at the rate of the whole run."""
        return corpus_gb * 1e9 * (self.tokens / max(1, self.text_bytes)) / max(self.whole, 1e-9) / 3600

    @property
    def workers_projected(self) -> int | None:
        """With so many workers, each with the engine of this machine, the run's own thread would have no time left: a
        projection from what it costs with one worker."""
        return None if not self.run_cpu_s_per_million else max(1, int(1e6 / (self.run_cpu_s_per_million * self.alone)))


def generate(folder: Path, size_bytes: int, *, seed: int = 0) -> None:
    """Write documents in four scripts, from one line to a book, so that most chunks are full and last chunks vary.

    The last document is cut, as a whole book could be several times `size_bytes`.
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
    """An engine that measures how long it had a batch in flight. `close` does nothing: the Opener closes the engine."""

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
        """Do nothing: the engine is reused, and closed by the Opener."""


class Opener:
    """Opens one engine and reuses it for the second run; a second request within one run means that the engine died."""

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
        """Let the next run have this engine, with its times reset to zero."""
        self._kept = Watched(self.watched[-1].engine)

    @property
    def busy(self) -> float:
        """The share of the time from the first batch to the last answer in which an engine of the run had work."""
        elapsed_s = self.watched[-1].last_at - self.watched[0].first_at
        return sum(watched.busy_s for watched in self.watched) / max(elapsed_s, 1e-9)

    def close(self) -> None:
        for watched in self.watched:
            watched.engine.close()


class Peak:
    """Polls the memory in use on these cards and keeps the highest value; None where no card can be read."""

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
    """A report that only remembers when the engine began to embed."""

    since_s = 0.0

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        self.since_s = progress.embedding_since or self.since_s


def measure(
    asked: Options, *, tools: Tools, reference: bool, say: Callable[[str], None], cards: Sequence[int] = (0,)
) -> Figures:
    """Run `ingest` with `asked` into a new index, then the engine alone, then the reference. Raises EmbedcliError."""
    opener, peak = Opener(tools), Peak(cards)
    with ExitStack() as at_the_end:
        at_the_end.callback(opener.close)
        at_the_end.callback(peak.stop)
        watching = replace(tools, open_engine=opener)
        _open(asked, watching)
        opener.keep()
        summary, whole_s = timed_run(asked, watching)
        say(f"whole run: {summary.tokens['embedded']:,} tokens in {whole_s:.0f} s")
        assert opener.model is not None
        texts: list[str] = ds.dataset(asked.index / "current/vectors").to_table(columns=["text"])["text"].to_pylist()
        engine = opener.watched[-1].engine
        rows = _rows(texts, opener.model, most=ALONE_TOKENS["cuda" if engine.device.startswith("cuda") else "cpu"])
        alone, padding = _alone(engine, rows)
        say(f"engine alone: {alone:,.0f} tokens/s")
        peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        busy = opener.busy
        cpu_s = coordinator_cpu_s(asked, replace(tools, open_engine=lambda *_: Watched(engine)))
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
        busy=busy,
        padding=padding,
        peak_gpu_bytes=peak.peak_bytes,
        peak_rss_bytes=peak_rss_bytes,
        run_cpu_s_per_million=None if cpu_s is None else cpu_s / summary.tokens["embedded"] * 1e6,
    )


def timed_run(asked: Options, tools: Tools) -> tuple[Summary, float]:
    """Run `ingest`; and the seconds from its first document to the published generation. Raises EmbedcliError."""
    clock = _Clock()
    summary = ingest(asked, tools=tools, report=clock)
    return summary, time.monotonic() - clock.since_s


def _open(asked: Options, tools: Tools) -> None:
    """Open the engine by a run over one line of text, with the settings of the run that is measured."""
    with tempfile.TemporaryDirectory(prefix="embedcli-bench-") as folder:
        (Path(folder) / "line.txt").write_text("A line.\n")
        first = replace(asked, index=Path(folder) / "index", sources=(f"{folder}/line.txt",))
        ingest(first, tools=tools, report=Report(quiet=True, stream=StringIO()))


def _rows(texts: list[str], model: Model, *, most: int) -> list[np.ndarray]:
    """The token ids of the first texts, up to `most` tokens. Shuffles `texts` first, so that lengths are mixed."""
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
    """How many of the first rows it takes to have `tokens` tokens; at least one."""
    ends = np.cumsum([row.size for row in rows])
    return min(len(rows), int(np.searchsorted(ends, tokens)) + 1)


def _alone(engine: Engine, rows: Sequence[np.ndarray]) -> tuple[float, float]:
    """(tokens/s, padding) of the engine fed from memory, its queue kept full."""
    lengths = [row.size for row in rows]
    batches = pack(lengths, batch_tokens=engine.batch_tokens, batch_rows=engine.batch_rows, padded=engine.padded)
    device_tokens = sum(batch_cost([lengths[i] for i in batch], padded=engine.padded) for batch in batches)
    waiting: deque[Future[np.ndarray]] = deque()
    started = time.perf_counter()
    for batch in batches:
        if len(waiting) >= engine.depth:
            waiting.popleft().result()
        waiting.append(engine.submit([rows[i] for i in batch]))
    for future in waiting:
        future.result()
    return sum(lengths) / (time.perf_counter() - started), 1 - sum(lengths) / device_tokens


def _reference(texts: Sequence[str], rows: Sequence[np.ndarray], model: Model, device: str) -> float | str:
    """The rate of sentence-transformers, or why it could not be measured. It runs in a process of its own, so that its
    memory is freed afterwards."""
    count = _first(rows, REFERENCE_TOKENS.get(device, REFERENCE_TOKENS["cpu"]))
    order = json.dumps({"folder": str(model.folder), "device": device, "texts": list(texts[:count])})
    command = [sys.executable, "-m", "embedcli.verbs.bench.reference"]
    try:
        ran = subprocess.run(command, input=order, capture_output=True, text=True, timeout=REFERENCE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"not finished after {REFERENCE_TIMEOUT_S:.0f} s"
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or ["killed, no output"])[-1]
    return sum(row.size for row in rows[:count]) / float(ran.stdout)
