"""Prints whether anything grows: memory over a large corpus, and files and seconds over many nights.

    PYTHONPATH=. python tests/soak.py [memory|nights] [SIZE]

`memory`: SIZE MB of synthetic text (1,000) read, chunked and stored over the fake engine; RSS of all processes and its
slope in MB per 100 MB of text. `nights`: SIZE nights (200) of small changes to 300 files, a day apart; files in
the index and seconds a night, the first twenty beside the last twenty.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from tests.workshop import Workshop, words

FILE_BYTES = 1_000_000
EVERY_S = 0.5


def memory(size_mb: int) -> None:
    folder = Path(tempfile.mkdtemp())
    shop = Workshop(folder, reading_processes=True)
    paragraphs = [words(90, seed=seed) for seed in range(2_000)]
    chooser = random.Random(0)
    for number in range(size_mb):
        text, count = [f"document {number}\n\n"], 0
        while count < FILE_BYTES:
            text.append(f"{chooser.random()} {chooser.choice(paragraphs)}\n")
            count += len(text[-1])
        shop.write(f"{number % 10}/{number:05d}.txt", "".join(text))
    samples: list[tuple[float, float]] = []
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(samples, done))
    watcher.start()
    started = time.perf_counter()
    summary = shop.ingest(dim=64, max_tokens=256)
    done.set()
    watcher.join()
    elapsed_s = time.perf_counter() - started
    settled = np.array(samples[len(samples) // 5 :])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * elapsed_s / size_mb * 100
    print(
        f"{size_mb} MB of text, {summary.chunks['total']:,} chunks, {elapsed_s:.0f} s: RSS of all processes"
        f" {settled[0, 1]:.0f} MB after a fifth, {settled[-1, 1]:.0f} MB at the end,"
        f" {settled[:, 1].max():.0f} MB at most, slope {slope:+.1f} MB per 100 MB of text"
    )
    shutil.rmtree(folder)


def watch(samples: list[tuple[float, float]], done: threading.Event) -> None:
    """(seconds, MB) of this process and all below it."""
    ours, started = psutil.Process(), time.perf_counter()
    while not done.wait(EVERY_S):
        total = 0
        for process in (ours, *ours.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        samples.append((time.perf_counter() - started, total / 1e6))


def nights(count: int) -> None:
    folder = Path(tempfile.mkdtemp())
    shop = Workshop(folder, reading_processes=True)
    for number in range(300):
        shop.write(f"{number % 7}/{number}.txt", words(120, seed=number))
    shop.ingest()
    chooser, seconds, files = random.Random(0), [], []
    for night in range(count):
        for _ in range(3):
            number = chooser.randrange(300)
            shop.write(f"{number % 7}/{number}.txt", words(120, seed=chooser.randrange(1 << 30)))
        shop.write(f"new/{night % 20}.txt", words(50, seed=night))
        started = time.perf_counter()
        shop.ingest()
        seconds.append(time.perf_counter() - started)
        files.append(sum(1 for path in shop.index.rglob("*") if path.is_file()))
        a_day_passes(shop.index)
    for name, part in (("first", slice(0, 20)), ("last", slice(-20, None))):
        print(
            f"{name} twenty of {count} nights: {statistics.median(seconds[part]):.2f} s a night,"
            f" {statistics.median(files[part]):.0f} files in the index, {max(files[part])} at most"
        )
    shutil.rmtree(folder)


def a_day_passes(index: Path) -> None:
    """What counts hours and days in the index goes by the times of these."""
    for path in (*(index / "generations").iterdir(), *(index / "changes").iterdir()):
        then = path.stat().st_mtime - 86_400
        os.utime(path, (then, then))


if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else "memory"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else {"memory": 1_000, "nights": 200}[verb]
    {"memory": memory, "nights": nights}[verb](size)
