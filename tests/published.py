"""A published index for the tests of commands: how it is filled, opened, damaged and locked.

In: a Workshop. Out: an Index, its rows and changes. Not here: any expectation.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcli import columns
from embedcli.index.generations import Index
from embedcli.index.manifest import manifest_bytes
from embedcli.vault.disk import Disk
from embedcli.verbs import verify
from embedcli.verbs.verify import Damage
from tests.workshop import Workshop, words

TESTS = Path(__file__).parent


def silent(_: str) -> None:
    """Ignore the warnings of a verb."""


def index_of(shop: Workshop, **seams: Any) -> Index:
    return Index(shop.index, disk=Disk(), **seams)


def filled(shop: Workshop, count: int = 6) -> Workshop:
    for number in range(count):
        shop.write(f"part-{number % 2}/file-{number}.txt", words(150, number))
    shop.ingest()
    return shop


def two_roots(shop: Workshop) -> tuple[Path, Path]:
    """`docs` and `more`, published together, so that one shard holds rows of both."""
    other = shop.docs.parent / "more"
    shop.write("../more/x.txt", words(150, 100))
    shop.write("../more/deep/y.txt", words(150, 101))
    shop.write("a.txt", words(150, 1))
    shop.write("b.txt", words(150, 2))
    shop.ingest(shop.docs, other)
    return shop.docs, other


def vectors(shop: Workshop) -> dict[str, tuple[float, ...]]:
    return {row["chunk_id"]: tuple(row["vector"]) for row in shop.rows()}


def changes(shop: Workshop, number: int) -> dict[str, set[str]]:
    rows = pq.read_table(shop.index / "changes" / f"{number:06d}.parquet").to_pylist()
    return {op: {row["chunk_id"] for row in rows if row["op"] == op} for op in {row["op"] for row in rows}}


def damage(shop: Workshop) -> list[Damage]:
    return verify.verify(index_of(shop)).damage


def hold(shop: Workshop, **fields: Any) -> Path:
    """Write a lock file as a run writes it; `fields` override its content."""
    file = shop.index / "lock"
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": "2026-01-02T03:04:05+00:00", "nonce": "a:1"}
    file.write_text(json.dumps({**holder, **fields}))
    return file


def spoil(path: Path, *, at: int) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()  # it may be a hard link
    path.write_bytes(data)


Rows = Callable[[pa.Table], pa.Table]


def rewritten(shop: Workshop, edit: Rows) -> list[str]:
    """The problems that `verify` finds after `edit` has changed the rows of the shard and the manifest says so."""
    (file,) = shop.index.glob("current/vectors/*.parquet")
    pq.write_table(edit(pq.read_table(file, schema=columns.row_schema(16))), file)
    found = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}

    def fit(data: dict[str, Any]) -> None:
        data["shards"][0] |= found
        data["counts"]["bytes"] = found["bytes"]

    edit_manifest(shop, fit)
    return [item.problem for item in damage(shop)]


def sha256_of(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def put(table: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    field = table.schema.field(name)
    values = pa.array(change(table.column(name).to_pylist()), field.type)
    return table.set_column(table.schema.get_field_index(name), field, values)


def rewrite_documents(shop: Workshop, edit: Rows) -> None:
    """Change documents.parquet by `edit`, and adapt the manifest to it."""
    file = shop.index / "current" / "documents.parquet"
    pq.write_table(edit(pq.read_table(file)), file)
    note_file(shop, file)


def note_file(shop: Workshop, file: Path) -> None:
    """Adapt the manifest to another content of a file beside the shards."""
    found = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    edit_manifest(shop, lambda data: data["files"].update({file.name: found}))


def edit_manifest(shop: Workshop, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of the current generation as if it had been written so."""
    manifest = shop.index / "current" / "manifest.json"
    data = json.loads(manifest.read_bytes())
    edit(data)
    manifest.write_bytes(manifest_bytes(data))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
