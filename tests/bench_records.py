"""What records cost: read and parsed, sifted against what is known, and as documents: a table, no test.

In: how many records of about 500 bytes (default: 1,000,000). Out: lines on stdout: MB/s of processor time (MB of the
records as JSON, whatever the format), and the
memory of the process, for all records and for a tenth of them: what grows with them is 16 bytes a record. The last
lines are of whole runs with a fake engine: the first one, and one in which nothing but the file's time has changed.
Run: `PYTHONPATH=. python tests/bench_records.py [RECORDS]`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.reading.containers.known import KnownFiles
from embedcli.reading.splitter import Split, SplittingWork, Whole
from embedcli.records import RecordRule, Source, stat_of
from embedcli.sources.containers import Asked

RECORDS = 1_000_000
WHOLE_RUN = 5_000
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


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1e3
    return 0.0


def measure(path: Path, folder: Path, known: KnownFiles | None) -> None:
    """In a process of its own: one line of JSON."""
    before = resident_mb()
    start = time.process_time()
    _, whole = split(path, folder, known)
    print(json.dumps({"s": time.process_time() - start, "mb": resident_mb() - before, "left": len(whole.left)}))


def measured(path: Path, folder: Path, known: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "measure", str(path), str(folder), "known" if known else ""]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def whole_runs(folder: Path, count: int) -> None:
    from tests.workshop import Workshop

    shop = Workshop(folder / "shop", reading_processes=True)
    make(shop.docs / "a.jsonl", count)
    shop.age(shop.docs / "a.jsonl")
    for what in ("first", "touched"):
        start, before = time.monotonic(), os.times()
        shop.ingest(max_tokens=256) if what == "first" else shop.ingest(reread=True)
        after = os.times()
        parent, children = after.user - before.user, after.children_user - before.children_user
        print(
            f"whole run, {what}: {count:,} records, {time.monotonic() - start:.1f} s, processor time a record:"
            f" {1e6 * parent / count:.0f} us of ours, {1e6 * children / count:.0f} us of the readers"
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
        KnownFiles.write(folder, "known", [([one for one, _ in came], [found for _, found in came])])
        found = measured(folder / "a.jsonl", folder, True)
        print(f".jsonl      all known: {count * record_mb / found['s']:.0f} MB/s, {found['mb']:.0f} MB")
        whole_runs(folder, min(WHOLE_RUN, count))


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        place = Path(sys.argv[3])
        files = KnownFiles(place / "known-keys.npy", place / "known-digests.npy") if sys.argv[4] else None
        measure(Path(sys.argv[2]), place, files)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
