"""Nothing grows: memory over a large corpus, files and seconds over many nights.

EMBEDCLI_TESTS_LONG=1 makes it 1,000 MB of text and 200 nights, and asks more of them. `pytest -s` prints the figures.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from embedcli.index.clearing import CHANGES_KEPT_S
from embedcli.index.generations import Index
from embedcli.vault.disk import Disk
from embedcli.verbs.verify import verify
from tests.workshop import Workshop, follow, words

LONG = os.environ.get("EMBEDCLI_TESTS_LONG") == "1"
TEXT_MB, NIGHTS = (1_000, 200) if LONG else (3, 9)
MOST_MB = 2_048
MOST_SLOPE = 5.0
"""MB of memory for each 100 MB of text."""
FILE_BYTES = 1_000_000
EVERY_S = 0.25
DAY_S = 86_400


class Unwritten(list[list[int]]):
    """Of three million rows a log would be what grows."""

    def append(self, _: list[int]) -> None:
        pass


def test_memory_is_flat_over_a_large_corpus(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, reading_processes=True)
    shop.log = Unwritten()
    fill(shop, TEXT_MB)
    with watched() as samples:
        started = time.perf_counter()
        summary = shop.ingest(dim=64, max_tokens=256)
        elapsed_s = time.perf_counter() - started
    settled = np.array(samples[len(samples) // 5 :])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * elapsed_s / TEXT_MB * 100
    print(
        f"{TEXT_MB} MB of text, {summary.chunks['total']:,} chunks, {elapsed_s:.0f} s: RSS of all processes"
        f" {settled[0, 1]:.0f} MB after a fifth, {settled[-1, 1]:.0f} MB at the end,"
        f" {settled[:, 1].max():.0f} MB at most, slope {slope:+.1f} MB per 100 MB of text"
    )
    assert settled[:, 1].max() < MOST_MB
    if LONG:  # over a few files it is the start of the processes that is measured
        assert slope < MOST_SLOPE


def fill(shop: Workshop, size_mb: int) -> None:
    """Files of a megabyte; no two paragraphs are the same."""
    paragraphs = [words(90, seed=seed) for seed in range(200)]
    chooser = random.Random(0)
    for number in range(size_mb):
        text, count = [f"document {number}\n\n"], 0
        while count < FILE_BYTES:
            text.append(f"{chooser.random()} {chooser.choice(paragraphs)}\n")
            count += len(text[-1])
        shop.write(f"{number % 10}/{number:05d}.txt", "".join(text))


@contextmanager
def watched() -> Iterator[list[tuple[float, float]]]:
    """(seconds, MB) of this process and all below it."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(samples, done))
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


def watch(samples: list[tuple[float, float]], done: threading.Event) -> None:
    ours, started = psutil.Process(), time.perf_counter()
    while not done.wait(EVERY_S):
        total = 0
        for process in (ours, *ours.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        samples.append((time.perf_counter() - started, total / 1e6))


def test_many_nights_of_small_changes_leave_neither_files_nor_seconds(shop: Workshop) -> None:
    for number in range(300):
        shop.write(f"{number % 7}/{number}.txt", words(40, seed=number))
    shop.ingest()
    chooser, seconds, files = random.Random(0), list[float](), list[int]()
    for night in range(NIGHTS):
        for _ in range(3):
            number = chooser.randrange(300)
            shop.write(f"{number % 7}/{number}.txt", words(40, seed=chooser.randrange(1 << 30)))
        shop.write(f"new/{night % 20}.txt", words(50, seed=night))
        started = time.perf_counter()
        shop.ingest()
        seconds.append(time.perf_counter() - started)
        files.append(len(files_of(shop.index)))
        a_day_passes(shop.index)
    third = max(1, NIGHTS // 3)
    first, last = statistics.median(seconds[:third]), statistics.median(seconds[-third:])
    print(f"{NIGHTS} nights: {first:.2f} s a night at first, {last:.2f} s at last; {max(files)} files at most")
    found = Index(shop.index, disk=Disk())
    assert verify(found).damage == []
    assert len(found.numbers()) <= 3, "the last two, and the one retired this night"
    assert follow(shop.index) == shop.ids() or NIGHTS * DAY_S > CHANGES_KEPT_S, "older changes are gone"
    changes = min(NIGHTS, CHANGES_KEPT_S // DAY_S) + 2
    shards = 3 * (1 + 8 + 8)  # of three generations: the first shard, and two tiers of nights
    assert max(files) <= changes + 2 * shards + 3 * 3 + 10
    if LONG:
        assert last < 2 * first + 0.2


def files_of(index: Path) -> list[Path]:
    return [path for path in index.rglob("*") if path.is_file()]


def a_day_passes(index: Path) -> None:
    """What counts hours and days in the index goes by the times of these."""
    for path in (*(index / "generations").iterdir(), *(index / "changes").iterdir()):
        then = path.stat().st_mtime - DAY_S
        os.utime(path, (then, then))
