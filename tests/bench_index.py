"""Prints what the index costs without a model: unchanged nights, planning, and nights of small changes.

    PYTHONPATH=. python tests/bench_index.py [unchanged|nights|planning|bound] [SIZE]

`unchanged`: SIZE files (10,000 by default), the second run's seconds. `nights`: SIZE documents of 10 rows (100,000),
1 % changed at random and 1 % in one folder, 14 nights: bytes rewritten and seconds of publishing a night.
`planning`: SIZE sources (1,000,000) of 10 vector keys, 1 % of them changed: seconds and peak RSS of the plan and of
looking up the keys of what changed.
`bound`: what any cut into shards could save of the bytes that 14 nights rewrite, by simulation, and what that many
files cost a scan of SIZE documents (20,000). A shard of a published generation holds live rows only, so a document that
changes costs its whole shard. Where 1 % of all documents change at random, nothing tells which ones come next: of
shards of d documents a share of 1 - 0.99^d is rewritten a night, so 0.35 of the bytes needs d = 40. To gather what has
changed in small shards apart (`hot`) saves 5 %, since each large one still loses a document a night. With 100,000 rows:

    documents a shard, files a million rows    bytes    DuckDB  Polars  pyarrow
    10,000 (today)                        23    1.00     1.00    1.00     1.00
       300                               386    0.94     0.96    1.04     0.74
       100                             1,139    0.61     0.95    1.13     0.90
        40                             2,836    0.31     1.19    1.31     1.20

So no cut has 0.35 of the bytes and scans of at most 1.15. Each shard also has a file of keys, a file in the cache and a
hard link a night, and a search asks one after the other: a thousand of them would cost more than the bytes they save.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embedcli import config
from embedcli.columns import READ_SCHEMA, VectorKeys
from embedcli.config import IndexSettings
from embedcli.fingerprints import Fingerprints
from embedcli.index import documents, next_table, shards
from embedcli.index.clearing import clear
from embedcli.index.documents import DocumentRow
from embedcli.index.generations import Index
from embedcli.index.outcomes import Outcome, Outcomes
from embedcli.index.publish import Draft, publish
from embedcli.index.shards import Shard
from embedcli.records import Root, digest
from embedcli.run.looking.compare import compare
from embedcli.sources.roots import Scope, Scopes
from embedcli.vault.disk import Disk
from tests.workshop import Workshop

import pyarrow as pa  # isort: skip
import pyarrow.parquet as pq  # isort: skip

DIM, ROWS = 128, 10
ROOT = Root("0" * 32, "/corpus")
RECIPE = {"model": "m", "commit": None, "folder": "/m", "weights_sha256": "w", "tokenizer_sha256": "t"}
PRINTS = Fingerprints("m", "c", "r")
SETTINGS = IndexSettings("m", None, "w", "t", DIM, 512, 0, False, "cpu", 1 << 28, None)


def unchanged(count: int) -> None:
    folder = Path(tempfile.mkdtemp())
    shop = Workshop(folder, reading_processes=True)
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


def document(number: int, version: int) -> tuple[pa.Table, VectorKeys]:
    """Ten rows of 1 kB of text and a random vector."""
    generator = np.random.default_rng([number, version])
    vectors = generator.standard_normal((ROWS, DIM), np.float32)
    path, texts = name_of(number), [generator.bytes(500).hex() for _ in range(ROWS)]
    digests = [digest(text) for text in texts]
    values = {
        "chunk_id": [digest(path, d) for d in digests], "doc_id": [digest(ROOT.id, path)] * ROWS, "path": [path] * ROWS,
        "chunk_index": range(ROWS), "text": texts, "chunk_digest": digests, "token_count": [300] * ROWS,
    }  # fmt: skip
    schema = READ_SCHEMA
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
        outcomes = Outcomes([ROOT.id])
        for start in range(0, len(numbers), 5000):
            part = numbers[start : start + 5000]
            made = [document(number, version) for number in part]
            shard = shards.write_shard(
                [rows for rows, _ in made], np.concatenate([keys for _, keys in made], axis=1), dim=DIM,
                folder=self.index.staging, keys_folder=self.index.staging, disk=self.index.disk,
            )  # fmt: skip
            known[shard.name] = shard
            outcomes.add(Outcome(None, row_of(n, version, shard.name, i * ROWS)) for i, n in enumerate(part))
        started = time.perf_counter()
        base = self.index.documents(current.number) if current else documents.empty()
        edition = next_table.edit(
            base, outcomes.rows, [], dropped=set(), seen=(), shards=known, damaged=(), roots=[ROOT.id], rebuilding=False
        )
        draft = Draft(
            number=self.index.next_number(), complete=True, settings=SETTINGS, fingerprints=PRINTS, roots=(ROOT,),
            mounts={}, query=RECIPE, probe=np.zeros((0, DIM), np.float32), probe_max_tokens=512,
            table=edition.table, changes=edition.changes, shards=known,
        )  # fmt: skip
        _, written = publish(self.index, draft, parent=current.number if current else None, lock_held=lambda: True)
        elapsed = time.perf_counter() - started
        for path in self.index.staging.iterdir():
            path.unlink()
        clear(self.index, keep=2)
        return elapsed, written


def row_of(number: int, version: int, shard: str, first_row: int) -> DocumentRow:
    path = name_of(number)
    return DocumentRow(
        root=ROOT.id, path=path, uri=f"/corpus/{path}", size=5000, mtime_ns=version, ctime_ns=0, inode=number,
        sha256=digest(path, version), model_fingerprint="m", chunk_fingerprint="c", read_fingerprint="r",
        status="indexed", reason=None, chunks=ROWS, tokens=3000, shard=shard, first_row=first_row, rows=ROWS,
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


SHARD_KEYS = 250_000


def planning(count: int) -> None:
    folder = Path(tempfile.mkdtemp())
    maker = multiprocessing.get_context("spawn").Process(target=make_known_sources, args=(folder, count))
    maker.start()  # in a process of its own: its memory is not the plan's
    maker.join()
    assert maker.exitcode == 0
    before_mb, started = peak_mb(), time.perf_counter()
    base = pq.read_table(folder / "documents.parquet", schema=documents.SCHEMA)
    rules = config.Rules(folder / "index", False, False, False, False, "r", 1 << 28, 50.0)
    root = Root(ROOT.id, str(folder / "docs"))
    plan = compare(base, Scopes((root,), (Scope(root),), frozenset(), ()), {}, rules)
    planned = time.perf_counter()
    stored = [shards.load_keys(path) for path in sorted(folder.glob("*.npy"))]
    found = 0
    for task in plan.tasks:
        keys = keys_of_number(int(Path(task.source.path).stem))
        found += sum(int((shards.find(one, keys) >= 0).sum()) for one in stored if one is not None)
    print(
        f"{count} sources, {count * ROWS} keys: planned in {planned - started:.1f} s ({plan.unchanged} unchanged,"
        f" {plan.tasks.count} to read), {found} keys found in {time.perf_counter() - planned:.1f} s;"
        f" peak RSS {peak_mb():.0f} MB ({before_mb:.0f} before)"
    )
    shutil.rmtree(folder)


def changed(history: str, count: int) -> Iterator[np.ndarray]:
    """The documents, by their places in the order of the walk, that each of 14 nights changes."""
    generator = np.random.default_rng(0)
    fifth = generator.permutation(count)[: count // 5]
    for night in range(14):
        some = generator.choice(fifth if history == "fifth" else count, count // 100, replace=False)
        folder = np.arange(night * count // 100, (night + 1) * count // 100)
        yield {"random": some, "fifth": some, "folder": folder, "both": np.union1d(some, folder)}[history]


def rewritten(history: str, count: int, cold: int, hot: int) -> tuple[float, int]:
    """How often all documents are rewritten in 14 nights, and how many shards there are then: those of the first
    publish have `cold` documents, those of documents that have changed since `hot`."""
    shard_of, total = np.arange(count) // cold, 0
    for documents_of_night in changed(history, count):
        following = int(shard_of.max()) + 1
        touched = np.zeros(following, np.bool_)
        touched[shard_of[documents_of_night]] = True
        stay = touched[shard_of]
        stay[documents_of_night] = False
        total += int(stay.sum())
        shard_of[documents_of_night] = following + np.arange(documents_of_night.size) // hot
    return total / count, np.unique(shard_of).size


HISTORIES = ("random", "fifth", "folder", "both")
CUTS = ((10_000, 2_000), (300, 300), (100, 100), (40, 40), (10_000, 20), (100, 20))
SCANS = {
    "duckdb": "import duckdb; duckdb.sql(\"select sum(length(text)), sum(vector[1]) from '{}/*.parquet'\").fetchall()",
    "polars": "import polars; polars.read_parquet('{}/*.parquet')",
    "pyarrow": "import pyarrow.parquet; pyarrow.parquet.read_table('{}')",
}


def bound(count: int) -> None:
    today = {history: rewritten(history, 100_000, *CUTS[0])[0] for history in HISTORIES}
    first: dict[str, float] = {}
    for cold, hot in CUTS:
        found = {history: rewritten(history, 100_000, cold, hot) for history in HISTORIES}
        shares = "  ".join(f"{history} {share / today[history]:.2f}" for history, (share, _) in found.items())
        files = found["both"][1]
        seconds = scan_seconds(count, max(1, files * count // 100_000))
        first = first or seconds
        scans = "  ".join(f"{name} {spent / first[name]:.2f}" for name, spent in seconds.items())
        print(f"{cold:6} cold {hot:5} hot: bytes {shares}; {files:,} files a million rows; scans {scans}", flush=True)


def scan_seconds(count: int, files: int) -> dict[str, float]:
    """CPU seconds of a scan of so many documents in so many files, less those of the import: the least of three."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vectors").mkdir()
        for part in np.array_split(np.arange(count), files):
            made = [document(int(number), 1) for number in part]
            shards.write_shard(
                [rows for rows, _ in made], np.concatenate([keys for _, keys in made], axis=1), dim=DIM,
                folder=Path(folder) / "vectors", keys_folder=Path(folder), disk=Disk(),
            )  # fmt: skip
        return {
            name: min(cpu_s(code.format(f"{folder}/vectors")) for _ in range(3 if count > 1_000 else 1))
            for name, code in SCANS.items()
        }


def cpu_s(code: str) -> float:
    loading, scan = code.split("; ", 1)
    timed = f"import time; {loading}; before = time.process_time(); {scan}; print(time.process_time() - before)"
    return float(subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True).stdout)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def keys_of_number(number: int) -> VectorKeys:
    return np.random.default_rng(number).integers(1, 1 << 63, (2, ROWS)).astype(np.uint64)


def make_known_sources(folder: Path, count: int) -> None:
    """Files, the table that knows 99 % of them as they are, and the keys of all."""
    for top in range(100):
        (folder / "docs" / f"{top:02d}").mkdir(parents=True)
    rows, keys, made = [], [], 0
    writer = pq.ParquetWriter(folder / "documents.parquet", documents.SCHEMA)
    for number in sorted(range(count), key=name_of):
        path = folder / "docs" / name_of(number)
        path.touch()
        stat = path.stat()
        row = row_of(number, stat.st_mtime_ns, "part-0", 0)
        rows.append(row.replace(size=0 if number % 100 else 1, ctime_ns=stat.st_ctime_ns, inode=stat.st_ino))
        keys.append(keys_of_number(number))
        if len(rows) * ROWS == SHARD_KEYS or number == count - 1:
            writer.write_table(documents.from_rows(rows))
            shards.write_keys(np.concatenate(keys, axis=1), folder / f"part-{made}.npy", Disk())
            rows, keys, made = [], [], made + 1
    writer.close()


if __name__ == "__main__":
    verb = sys.argv[1] if len(sys.argv) > 1 else "unchanged"
    run, usual = {
        "unchanged": (unchanged, 10_000), "nights": (nights, 100_000), "planning": (planning, 10**6),
        "bound": (bound, 20_000),
    }[verb]  # fmt: skip
    run(int(sys.argv[2]) if len(sys.argv) > 2 else usual)
