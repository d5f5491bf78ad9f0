"""What this machine can do: the whole `ingest`, its engine alone and sentence-transformers on the same chunks.

In: a folder of documents (or generated ones), the tools of a real run. Out: Figures. The whole run counts from the
engine's readiness to the published generation; loading is told apart.
Not here: printing (machine_cli.py), the reference's own process (bench_reference.py).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from embedcli.card import read_cards
from embedcli.config import Asked, IndexSettings
from embedcli.engine import Engine, pack
from embedcli.errors import EngineError
from embedcli.ingest import Tools, ingest
from embedcli.models import Model
from embedcli.report import Report
from embedcli.tokens import load_tokenizer

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
    """Rates in tokens/s. `busy` is the share of its time in which the engine had work; `padding` of its tokens ours."""

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
    busy: float
    padding: float
    peak_gpu_bytes: int | None
    peak_rss_bytes: int

    def hours(self, corpus_gb: float) -> float:
        """For a corpus of so much text, at the rate of the whole run."""
        return corpus_gb * 1e9 * (self.tokens / max(1, self.text_bytes)) / max(self.whole, 1e-9) / 3600


def generate(folder: Path, size_bytes: int, *, seed: int = 0) -> None:
    """Documents from one line to a book in four scripts: most chunks are full, tails are of any length."""
    chooser = np.random.default_rng(seed)
    vocabularies = [_vocabulary(chooser, letters) for letters in SCRIPTS]
    written = number = 0
    while written < size_bytes:
        words = vocabularies[number % 7 % len(vocabularies)]
        paragraphs = chooser.integers(3, 120, max(1, int(chooser.lognormal(2.0, 1.3))))
        text = "\n\n".join(" ".join(chooser.choice(words, count)) + "." for count in paragraphs)
        data = text.encode()
        (folder / f"{number:06d}.txt").write_bytes(data)
        written, number = written + len(data), number + 1


def _vocabulary(chooser: np.random.Generator, letters: str) -> np.ndarray:
    longest = 9 if ord(letters[0]) < 0x3000 else 3
    return np.array(["".join(chooser.choice(list(letters), size)) for size in chooser.integers(1, longest, 4_000)])


class Watched:
    """The engine of the run: kept open behind it, and timed. Between its first list and its last answer it was busy
    or waited for us."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ready_at = time.perf_counter()
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

    @property
    def busy(self) -> float:
        return self.busy_s / max(self.last_at - self.first_at, 1e-9)

    def close(self) -> None:
        """The run is over, the engine is not: it is measured alone next."""


class Peak:
    """Most memory of the first card in use, polled; None where there is no card."""

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                card = read_cards((0,))[0]
            except EngineError:
                return
            self.peak_bytes = max(self.peak_bytes or 0, card.total_bytes - card.free_bytes)

    def stop(self) -> int | None:
        self._over.set()
        self._thread.join()
        return self.peak_bytes


def measure(asked: Asked, *, tools: Tools, reference: bool, say: Callable[[str], None]) -> Figures:
    """Run `ingest` of `asked` into its (new) index, then the engine alone, then the reference. Raises EmbedcliError."""
    watched: list[Watched] = []
    models: list[Model] = []

    def open_engine(model: Model, settings: IndexSettings, device: str) -> Watched:
        models.append(model)
        watched.append(Watched(tools.open_engine(model, settings, device)))
        return watched[-1]

    peak, started = Peak(), time.perf_counter()
    summary = ingest(asked, tools=replace(tools, open_engine=open_engine), report=Report(quiet=True))
    whole_s = time.perf_counter() - watched[-1].ready_at
    say(f"whole: {summary.tokens['embedded']:,} tokens in {whole_s:.0f} s")
    engine, model = watched[-1], models[-1]
    texts: list[str] = ds.dataset(asked.index / "current/vectors").to_table(columns=["text"])["text"].to_pylist()
    np.random.default_rng(0).shuffle(texts)
    alone, padding = _alone(engine.engine, texts, model)
    say(f"engine alone: {alone:,.0f} tokens/s")
    engine.engine.close()
    device = tools.device_kind(asked)
    return Figures(
        model=summary.model or model.name,
        device=device,
        dim=summary.dim or 0,
        chunks=summary.chunks["total"],
        tokens=summary.tokens["embedded"],
        text_bytes=sum(len(text.encode()) for text in texts),
        load_s=engine.ready_at - started,
        whole=summary.tokens["embedded"] / whole_s,
        alone=alone,
        reference=_reference(texts, model, device) if reference else None,
        busy=engine.busy,
        padding=padding,
        peak_gpu_bytes=peak.stop(),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _alone(engine: Engine, texts: Sequence[str], model: Model) -> tuple[float, float]:
    """(tokens/s, padding) of the engine fed from memory, its queue kept full."""
    encode = load_tokenizer(model.folder, prompt=model.prompt).whole
    rows, total = [], 0
    for text in texts:
        if total >= ALONE_TOKENS["cuda" if engine.device == "cuda" else "cpu"]:
            break
        rows.append(encode(text))
        total += rows[-1].size
    lengths = [row.size for row in rows]
    lists = pack(lengths, batch_tokens=engine.batch_tokens, batch_rows=engine.batch_rows, padded=engine.padded)
    device_tokens = sum(max(lengths[i] for i in one) * len(one) for one in lists) if engine.padded else total
    waiting: deque[Future[np.ndarray]] = deque()
    started = time.perf_counter()
    for one in lists:
        if len(waiting) >= engine.depth:
            waiting.popleft().result()
        waiting.append(engine.submit([rows[i] for i in one]))
    for future in waiting:
        future.result()
    return total / (time.perf_counter() - started), 1 - total / max(1, device_tokens)


def _reference(texts: Sequence[str], model: Model, device: str) -> float | None:
    """sentence-transformers in a process of its own, so that its memory is gone afterwards; None where it cannot."""
    encode = load_tokenizer(model.folder, prompt=model.prompt).whole
    chosen, total = [], 0
    for text in texts:
        if total >= REFERENCE_TOKENS.get(device, REFERENCE_TOKENS["cpu"]):
            break
        chosen.append(text)
        total += encode(text).size
    order = json.dumps({"folder": str(model.folder), "device": device, "texts": chosen})
    command = [sys.executable, "-m", "embedcli.bench_reference"]
    ran = subprocess.run(command, input=order, capture_output=True, text=True, timeout=REFERENCE_TIMEOUT_S)
    return total / float(ran.stdout) if ran.returncode == 0 else None
