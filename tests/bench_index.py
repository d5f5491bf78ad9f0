"""Prints what the index costs without a model: unchanged nights, planning, and nights of small changes.

    PYTHONPATH=. python tests/bench_index.py [unchanged|nights] [SIZE]

`unchanged`: SIZE files (10,000 by default), the second run's seconds. `nights`: SIZE documents of 10 rows (100,000),
1 % changed at random and 1 % in one folder, 14 nights: bytes rewritten and seconds of publishing a night.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from embedcli import documents, publishing, shards
from embedcli.config import Fingerprints, IndexSettings
from embedcli.disk import Disk
from embedcli.documents import DocumentRow
from embedcli.generations import Draft, Index
from embedcli.records import Root, digest
from embedcli.shards import Shard
from embedcli.staging import Outcome
from tests.workshop import Workshop

import pyarrow as pa  # isort: skip

DIM, ROWS = 128, 10
ROOT = Root("0" * 32, "/corpus")
PRINTS = Fingerprints("m", "c", "r")
SETTINGS = IndexSettings("m", None, "w", "t", DIM, 512, 0, False, "cpu", 1 << 28)


def unchanged(count: int) -> None:
    folder = Path(tempfile.mkdtemp())
    shop = Workshop(folder)
    for number in range(count):
        path = shop.docs / f"{number % 100:02d}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"document number {number}\n")
        shop.age(path)
    started = time.perf_counter()
    shop.ingest()
    first = time.perf_counter() - started
    command = [sys.executable, "-X", "importtime", "-m", "embedcli", "ingest", "--index", str(shop.index)]
    started = time.perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{count} files: first run {first:.1f} s, second {time.perf_counter() - started:.2f} s,", end=" ")
    print("torch imported" if "torch" in ran.stderr else "torch not imported")
    shutil.rmtree(folder)


def document(number: int, version: int) -> tuple[pa.Table, shards.Keys]:
    """Ten rows of 1 kB of text and a random vector."""
    generator = np.random.default_rng([number, version])
    vectors = generator.standard_normal((ROWS, DIM), np.float32)
    path, texts = name_of(number), [generator.bytes(500).hex() for _ in range(ROWS)]
    digests = [digest(text) for text in texts]
    values = {
        "chunk_id": [digest(path, d) for d in digests], "doc_id": [digest(ROOT.id, path)] * ROWS, "path": [path] * ROWS,
        "chunk_index": range(ROWS), "text": texts, "chunk_digest": digests, "token_count": [300] * ROWS,
    }  # fmt: skip
    schema = shards.READ_SCHEMA
    columns = [pa.array(values.get(field.name, [None] * ROWS), field.type) for field in schema]
    rows = shards.complete_rows(pa.table(columns, schema=schema), vectors, changed_in=version, keep=None)
    return rows, generator.integers(1, 1 << 63, (2, ROWS)).astype(np.uint64)


def name_of(number: int) -> str:
    return f"{number % 100:02d}/{number:07d}.txt"


class Night:
    """Publishes one generation after the other, as a run that finished `numbers` would."""

    def __init__(self, folder: Path) -> None:
        self.index = Index(folder, disk=Disk())
        self.index.create()

    def publish(self, numbers: list[int], version: int) -> tuple[float, int]:
        current = self.index.current()
        known: dict[str, Shard] = dict(current.shards) if current else {}
        outcomes = []
        for start in range(0, len(numbers), 5000):
            part = numbers[start : start + 5000]
            made = [document(number, version) for number in part]
            shard = shards.write_shard(
                [rows for rows, _ in made], np.concatenate([keys for _, keys in made], axis=1), dim=DIM,
                folder=self.index.staging, keys_folder=self.index.staging, disk=self.index.disk,
            )  # fmt: skip
            known[shard.name] = shard
            outcomes += [Outcome(None, row_of(n, version, shard.name, i * ROWS)) for i, n in enumerate(part)]
        started = time.perf_counter()
        base = self.index.documents(current.number) if current else documents.empty()
        edition = publishing.edit(
            base, outcomes, dropped=set(), seen=(), shards=known, roots=[ROOT.id], rebuilding=False
        )
        draft = Draft(
            number=self.index.next_number(), complete=True, settings=SETTINGS, fingerprints=PRINTS, roots=(ROOT,),
            mounts={}, query={}, probe=np.zeros((0, DIM), np.float32), table=edition.table, changes=edition.changes,
            shards=known,
        )  # fmt: skip
        _, written = self.index.publish(draft, parent=current.number if current else None, lock_held=lambda: True)
        elapsed = time.perf_counter() - started
        for path in self.index.staging.iterdir():
            path.unlink()
        self.index.clear(keep=2)
        return elapsed, written


def row_of(number: int, version: int, shard: str, first_row: int) -> DocumentRow:
    path = name_of(number)
    return DocumentRow(
        ROOT.id, path, f"/corpus/{path}", 5000, version, 0, number, digest(path, version), "m", "c", "r", "indexed",
        None, 1, None, 0, ROWS, (), 3000, shard, first_row, ROWS,
    )  # fmt: skip


def nights(count: int) -> None:
    folder = Path(tempfile.mkdtemp())
    night = Night(folder)
    generator = np.random.default_rng(0)
    elapsed, _ = night.publish(list(range(count)), 1)
    print(f"{count} documents, {count * ROWS} rows: first publish {elapsed:.1f} s")
    for version in range(2, 16):
        scattered = set(generator.choice(count, count // 100, replace=False).tolist())
        together = set(range(version, count, 100))
        elapsed, written = night.publish(sorted(scattered | together), version)
        held = len(list((folder / "current/vectors").iterdir()))
        print(f"night {version - 1:2}: {elapsed:6.1f} s, {written / 1e6:8.1f} MB rewritten, {held} shards")
    print(f"peak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    shutil.rmtree(folder)


if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else "unchanged"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else {"unchanged": 10_000, "nights": 100_000}[verb]
    {"unchanged": unchanged, "nights": nights}[verb](size)
