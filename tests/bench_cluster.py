"""Prints the weak scaling of a run over workers in processes of their own, and what the run itself costs.

    PYTHONPATH=. python tests/bench_cluster.py [DOCUMENTS a worker, 250 by default] [WORKERS ...: 1 2 4 8 by default]

In: generated documents, so many for each worker; an engine of a fixed speed in each. Out: a line for each number of
workers: seconds in all, of work since the workers were ready, and ideal ones; tokens/s, and their share of the ideal;
CPU seconds of the run's own process for each million tokens, until the workers had done everything and for the publish;
bytes of messages for each document. Workers share the cores of this machine for their reading, so the share of the
ideal is a lower bound; CPU seconds and bytes are sound.

Seen on two cores with a load of 12 from others, 200 documents of 1,800 tokens a worker:
workers whole, s  work, s ideal, s  tokens/s  share CPU s / M tok publishing  bytes to, back
      1     51.6     47.2     44.6     7,562    95%          0.46       1.16       180   408
      2     51.2     46.9     44.0    15,038    94%          0.26       0.75       180   414
      4     56.1     47.6     44.3    29,769    93%          0.23       0.79       181   412
      8     43.4     31.2     22.1    45,378    71%          0.33       0.90       193   495   (100 documents, load 18)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from embedcli.cluster.transport import Handle
from embedcli.report import Progress
from tests.cluster_doubles import Double, Processes, ProcessHandle
from tests.workshop import Lines, Workshop, words

TOKENS_PER_S = 8_000.0
WORDS = 450
"""Of the median document; with MiniLM's tokenizer a word of these is three tokens."""


class Counted(Processes):
    """Counts the bytes of what is offered and answered."""

    offered = answered = 0

    def arrived(self) -> list[Handle]:
        handles = super().arrived()
        for handle in handles:
            self._watch(handle)
        return handles

    def _watch(self, handle: Any) -> None:
        plain = handle.call

        def call(method: str, message: bytes) -> Any:
            future = plain(method, message)
            if method == "offer":
                self.offered += len(message)
            elif method == "collect":
                future.add_done_callback(self._count)
            return future

        handle.call = call

    def _count(self, future: Any) -> None:
        if future.exception() is None:
            self.answered += len(future.result())


class Timed(Lines):
    """Remembers when the last of the workers was ready, and when they had done everything: the clock, and our CPU."""

    ready_s = done_s = done_cpu = 0.0

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        if progress.phase == "publishing":
            self.done_s, self.done_cpu = time.perf_counter(), time.process_time()

    def _write(self, text: str, *, show: bool) -> None:
        if " is ready: " in text:
            self.ready_s = time.perf_counter()
        super()._write(text, show=show)


def make_corpus(shop: Workshop, documents: int) -> None:
    sizes = np.random.default_rng(0).lognormal(np.log(WORDS), 0.6, documents).astype(int)
    for number, size in enumerate(sizes):
        shop.write(f"{number // 100:03d}/{number:05d}.txt", words(int(max(20, size)), seed=number))


def measure(documents: int, workers: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-cluster-"))
    try:
        shop = Workshop(folder)
        make_corpus(shop, documents * workers)
        force = Counted(workers, Double(tokens_per_s=TOKENS_PER_S, reading_processes=True))
        force.forked = [ProcessHandle(f"worker-{number}", fork=True) for number in range(workers)]
        report = Timed()
        began_cpu, began_s = time.process_time(), time.perf_counter()
        summary = shop.ingest(workforce=force, report=report, dim=128, max_tokens=256)
        cpu_s, publish_cpu_s = report.done_cpu - began_cpu, time.process_time() - report.done_cpu
        wall_s, whole_s = report.done_s - report.ready_s, time.perf_counter() - began_s
    finally:
        shutil.rmtree(folder)
    tokens = summary.tokens["embedded"]
    ideal_s = tokens / TOKENS_PER_S / workers
    count = documents * workers
    print(
        f"{workers:>7} {whole_s:>8.1f} {wall_s:>8.1f} {ideal_s:>8.1f} {tokens / wall_s:>9,.0f} {ideal_s / wall_s:>6.0%}"
        f" {cpu_s / tokens * 1e6:>13.2f} {publish_cpu_s / tokens * 1e6:>10.2f} {force.offered / count:>9.0f}"
        f" {force.answered / count:>5.0f}",
        flush=True,
    )


def main(documents: int = 250, workers: Iterable[int] = (1, 2, 4, 8)) -> None:
    print("workers whole, s  work, s ideal, s  tokens/s  share CPU s / M tok publishing  bytes to, back")
    for count in workers:
        measure(documents, count)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(given[0] if given else 250, given[1:] or (1, 2, 4, 8))
