"""What records cost: read and parsed, sifted against what is known, and as documents: a table, no test.

In: how many records of about 500 bytes (default: 1,000,000). Out: lines on stdout: MB/s of processor time (MB of the
records as JSON, whatever the format), and the
memory of the process, for all records and for a tenth of them: what grows with them is 16 bytes a record. The last
lines are of whole runs with a fake engine, for all records and for a fifth of them: the first one; one in which nothing
but the file's time has changed; one in which 1 % of the records have; one that reads all of them again.
Run: `PYTHONPATH=. python tests/bench_records.py [RECORDS]`, the whole runs alone with `... whole_runs RECORDS`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.reading.containers.known import KnownFiles
from embedcli.reading.splitter import Split, SplittingWork, Whole
from embedcli.records import RecordRule, Source, stat_of
from embedcli.sources.containers import Asked

RECORDS = 1_000_000
BATCH = 100_000
WORDS = [f"word{n * 7919 % 9973}" for n in range(9_973)]


def records(first: int, count: int) -> Iterator[dict[str, object]]:
    for number in range(first, first + count):
        text = " ".join(WORDS[(number * 31 + n * 17) % len(WORDS)] for n in range(42))
        yield {"id": number, "title": f"Ticket {number}", "text": text, "status": "open", "team": "hub", "priority": 3}


def make(path: Path, count: int) -> None:
    writer: pq.ParquetWriter | None = None
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "title", "text", "status", "team", "priority"])
        if path.suffix == ".csv":
            table.writeheader()
        for first in range(0, count, BATCH):
            batch = list(records(first, min(BATCH, count - first)))
            if path.suffix == ".csv":
                table.writerows(batch)
            elif path.suffix == ".parquet":
                rows = pa.Table.from_pylist(batch)
                writer = writer or pq.ParquetWriter(path, rows.schema)
                writer.write_table(rows)
            else:
                file.write("".join(orjson.dumps(row).decode() + "\n" for row in batch))
    if writer is not None:
        writer.close()


def split(path: Path, folder: Path, known: KnownFiles | None) -> tuple[list[tuple[str, str]], Whole]:
    """Split a container as its process does; returns ids and digests of what came out."""
    work = SplittingWork(folder)
    request: Split | None = Split(
        Source("root", path.name, str(path), stat_of(path.stat())), Asked(RecordRule(), True), known
    )
    came: list[tuple[str, str]] = []
    while True:
        answer = work(request, lambda _: None, with_forms=True)
        if isinstance(answer, Whole):
            return came, answer
        assert answer is not None
        if os.environ.get("KEEP"):
            came += [(record.id, record.digest) for record in answer]
        request = None


def status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def measure(path: Path, folder: Path, known: KnownFiles | None) -> None:
    """In a process of its own: one line of JSON."""
    before = status_mb("VmHWM")
    start = time.process_time()
    _, whole = split(path, folder, known)
    print(json.dumps({"s": time.process_time() - start, "mb": status_mb("VmHWM") - before, "left": len(whole.left)}))


def measured(path: Path, folder: Path, known: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "measure", str(path), str(folder), "known" if known else ""]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


class MostMemory:
    """Looks, in a thread of its own, how much memory this process has that only it has: what is mapped from files the
    system takes back when it needs it."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._most_mb = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MostMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def since_last(self) -> float:
        most_mb, self._most_mb = self._most_mb, 0.0
        return most_mb

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self._most_mb = max(self._most_mb, status_mb("RssAnon"))


def whole(folder: Path, count: int) -> None:
    """In a process of its own: a line of JSON for each of the runs."""
    from tests.fake_engines import EngineOfDigests
    from tests.workshop import Workshop

    shop = Workshop(folder, reading_processes=True)
    file = shop.docs / "a.jsonl"
    flags: dict[str, Any] = {
        "open_engine": lambda model, settings, device: EngineOfDigests(dim=settings.dim, batch_tokens=1 << 15),
        "checkpoint_bytes": 8 << 20,  # what waits for a checkpoint is not what grows, and few records reach this
    }
    make(file, count)
    with MostMemory() as memory:
        for what in ("first", "unchanged", "touched", "1 % changed", "all read again"):
            if what == "1 % changed":
                change(file)
            shop.age(file, -1e6 if what == "touched" else 100.0)
            more = {"max_tokens": 256} if what == "first" else {"reread": True} if what == "all read again" else {}
            memory.since_last()
            start, cpu_s, before = time.monotonic(), time.process_time(), os.times()
            summary = shop.ingest(**flags, **more)
            after = os.times()
            found = {
                "what": what, "s": time.monotonic() - start, "cpu_s": time.process_time() - cpu_s,
                "readers_s": after.children_user - before.children_user, "mb": memory.since_last(),
                "changed": summary.sources["changed"], "publishing_s": summary.seconds.get("publishing", 0.0),
            }  # fmt: skip
            print(json.dumps(found), flush=True)


def change(file: Path) -> None:
    """Change the text of every hundredth record."""
    changed = file.with_suffix(".new")
    with file.open("rb") as old, changed.open("wb") as new:
        for number, line in enumerate(old):
            new.write(line.replace(b'"text":"', b'"text":"changed ') if number % 100 == 0 else line)
    changed.replace(file)


def whole_runs(count: int) -> None:
    """Runs over so many records and a fifth of them, so that what grows is told from what does not."""
    found = []
    for part in (count // 5, count):
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, __file__, "whole", name, str(part)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            found.append([json.loads(line) for line in printed.splitlines()])
    for small, large in zip(*found, strict=True):
        grown = (large["mb"] - small["mb"]) * 1e6 / (count - count // 5)
        print(
            f"whole run, {large['what']}: {count:,} records, {large['s']:.0f} s,"
            f" {count / large['cpu_s']:,.0f} records a CPU second of ours, {large['readers_s']:.0f} CPU s of readers,"
            f" {large['mb']:.0f} MB of memory, {grown:.0f} bytes a record more than a fifth of them",
            flush=True,
        )


def main(count: int) -> None:
    record_mb = len(b"".join(orjson.dumps(one) + b"\n" for one in records(0, 1_000))) / 1e9
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".jsonl", ".csv", ".parquet", ".jsonl.zst"):
            lines = []
            for part in (count // 10, count):
                path = folder / f"a{suffix.removesuffix('.zst')}"
                make(path, part)
                if suffix.endswith(".zst"):
                    subprocess.run(["zstd", "-qf", "--rm", str(path)], check=True)
                    path = folder / f"a{suffix}"
                found = measured(path, folder, False)
                lines.append(f"{part:,} records: {part * record_mb / found['s']:.0f} MB/s, {found['mb']:.0f} MB")
            print(f"{suffix:11} all new: {'; '.join(lines)}")
        make(folder / "a.jsonl", count)
        os.environ["KEEP"] = "1"
        came, _ = split(folder / "a.jsonl", folder, None)
        del os.environ["KEEP"]
        KnownFiles.write(folder, "known", [([one for one, _ in came], [found for _, found in came])], count=len(came))
        found = measured(folder / "a.jsonl", folder, True)
        print(f".jsonl      all known: {count * record_mb / found['s']:.0f} MB/s, {found['mb']:.0f} MB")
    whole_runs(count)


if __name__ == "__main__":
    if sys.argv[1:2] == ["whole"]:
        whole(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["whole_runs"]:
        whole_runs(int(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        place = Path(sys.argv[3])
        files = KnownFiles(place / "known-keys.npy", place / "known-digests.npy") if sys.argv[4] else None
        measure(Path(sys.argv[2]), place, files)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
