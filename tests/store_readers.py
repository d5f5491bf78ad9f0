"""What a vector database holds, read by its own client as a user of it would, without the code under test.

In: a target, as it is typed. Out: for each chunk id the generation in which it changed, its path, uri and vector.
Not here: any expectation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Row = tuple[int, str, str, str, npt.NDArray[np.float32]]
Rows = dict[str, Row]


def from_table(table: pa.Table) -> Rows:
    """The rows of an index, in the same form."""
    return {row["chunk_id"]: _row(row, row["vector"], row["text"]) for row in table.to_pylist()}


def _row(row: dict[str, Any], vector: Any, text: str) -> Row:
    return int(row["changed_in"]), row["path"], row["uri"], text, np.asarray(vector, np.float32)


def difference(held: Rows, expected: Rows) -> list[str]:
    """The ids of rows that are missing, too many or not the same; vectors are the same within a unit of float32."""
    ids = sorted(held.keys() ^ expected.keys())
    for chunk_id in held.keys() & expected.keys():
        (*row, vector), (*wanted, wanted_vector) = held[chunk_id], expected[chunk_id]
        if row != wanted or vector.shape != wanted_vector.shape or not np.allclose(vector, wanted_vector, atol=1e-6):
            ids.append(chunk_id)
    return ids


def read_sqlite(path: str, table: str) -> Rows:
    import apsw
    import sqlite_vec

    with apsw.Connection(path) as connection:
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        names = ("chunk_id", "changed_in", "path", "uri", "text")
        query = f"select {', '.join(names)}, vector from {table} join {table}_vectors using (id)"
        found = connection.execute(query).fetchall()
    connection.close()
    rows = [(dict(zip(names, row[:5], strict=True)), np.frombuffer(row[5], np.float32)) for row in found]
    return {row["chunk_id"]: _row(row, vector, row["text"]) for row, vector in rows}


def read_lancedb(path: str, table: str) -> Rows:
    import lancedb

    return from_table(lancedb.connect(path).open_table(table).to_arrow())


def read_qdrant(path: str, table: str) -> Rows:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=path)
    points, _ = client.scroll(table, limit=100_000, with_vectors=True)
    client.close()
    rows = [(point.payload or {}, point.vector) for point in points]
    assert all(str(point.id).replace("-", "") == row["chunk_id"] for point, (row, _) in zip(points, rows, strict=True))
    return {row["chunk_id"]: _row(row, vector, row["text"]) for row, vector in rows}


def read_postgresql(url: str, table: str) -> Rows:
    import psycopg

    with psycopg.connect(f"postgresql:{url}") as connection:
        names = ("chunk_id", "changed_in", "path", "uri", "text")
        found = connection.execute(f"select {', '.join(names)}, vector::text from {table}").fetchall()
    rows = [(dict(zip(names, row[:5], strict=True)), [float(x) for x in row[5][1:-1].split(",")]) for row in found]
    return {row["chunk_id"]: _row(row, vector, row["text"]) for row, vector in rows}


def read_chroma(path: str, table: str) -> Rows:
    import chromadb

    client = chromadb.PersistentClient(path, settings=chromadb.config.Settings(anonymized_telemetry=False))
    found = client.get_collection(table, embedding_function=None).get(include=["embeddings", "metadatas", "documents"])
    client.close()
    parts = zip(found["ids"], found["metadatas"], found["embeddings"], found["documents"], strict=True)
    return {chunk_id: _row(row, vector, text) for chunk_id, row, vector, text in parts}


def read_milvus(path: str, table: str) -> Rows:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(path)
    client.load_collection(table)  # as users do: Lite forgets it with a kill
    found = client.query(table, filter="", output_fields=["*"], limit=16_384)
    client.close()
    server_manager_instance.release_server(path)
    return {row["chunk_id"]: _row(row, row["vector"], row["text"]) for row in found}


READERS: dict[str, Callable[[str, str], Rows]] = {
    "sqlite": read_sqlite,
    "lancedb": read_lancedb,
    "qdrant": read_qdrant,
    "postgresql": read_postgresql,
    "chroma": read_chroma,
    "milvus": read_milvus,
}


def read(target: str, table: str = "notes") -> Rows:
    kind, _, rest = target.partition(":")
    return READERS[kind](rest, table)
