"""The `state/` folder: what runs remember outside the generations. Losing it costs digests and history, never rows.

In: outcomes that changed no row, a history line for each run, the progress of the current run, names of damaged
shards. Out: `state/seen.parquet`, `state/runs.jsonl`, `state/progress.json`, `state/damaged/`.
Not here: anything that a reader of vectors needs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.fields import Fields
from embedcli.index.documents import Mark, fold
from embedcli.paths import matching
from embedcli.vault.disk import Disk, open_file

TAIL_BYTES = 256 << 10
"""How much of the history is read from its end: 100 runs and more."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d.*")
SEEN_COLUMNS = ("size", "mtime_ns", "ctime_ns", "inode", "attempts", "tried")
_SCHEMA = pa.schema(
    [
        ("root", pa.string()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("attempts", pa.int32()),
        ("tried", pa.string()),
    ]
)


def read_seen(folder: Path, generation: int | None) -> list[Mark]:
    """Stats and attempts that changed since `generation` was published; none when the file is of another generation."""
    try:
        table = pq.read_table(folder / "seen.parquet", page_checksum_verification=True)
        if (table.schema.metadata or {}).get(b"generation") != str(generation).encode():
            return []
        rows = table.cast(_SCHEMA).to_pylist()
    except (OSError, ValueError, pa.ArrowException):
        return []
    return [
        Mark((row["root"], row["path"]), {name: row[name] for name in SEEN_COLUMNS if row[name] is not None})
        for row in rows
    ]


def write_seen(folder: Path, generation: int | None, marks: Sequence[Mark], disk: Disk) -> None:
    rows = [{"root": m.key[0], "path": m.key[1], **m.columns} for m in fold(marks)]
    columns = {name: [row.get(name) for row in rows] for name in _SCHEMA.names}
    table = pa.table(columns, schema=_SCHEMA).replace_schema_metadata({"generation": str(generation)})
    disk.write(
        folder / "seen.parquet",
        lambda sink: pq.write_table(table, pa.PythonFile(sink, mode="w"), compression="zstd", write_page_checksum=True),
    )


def append_run(folder: Path, line: Mapping[str, Any], disk: Disk) -> None:
    """Add a line to the history of runs. Raises StorageError."""
    disk.append(folder / "runs.jsonl", (json.dumps(line, ensure_ascii=False) + "\n").encode())


def last_runs(folder: Path, count: int) -> list[dict[str, Any]]:
    """The last lines of the history, the newest first; torn lines are skipped."""
    try:
        with (folder / "runs.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    found = (_run_of(line) for line in reversed(lines))
    return list(islice((run for run in found if run is not None), count))


def _run_of(line: bytes) -> dict[str, Any] | None:
    """One line of the history; None for one that is torn or damaged. Older versions wrote fewer fields."""
    try:
        run: dict[str, Any] = json.loads(line)
        fields = Fields(run)
        fields.text("ended_at", of=_TIME)
        fields.number("elapsed_s")
        fields.maybe("generation", fields.whole)
        fields.get("tokens_per_s", fields.number, 0.0)
        for name in ("host", "fingerprint", "verb", "error"):
            fields.get(name, fields.text, "")
        fields.whole("sources") if "verb" in fields else fields.wholes("sources")
        if "tokens" in fields:
            fields.object("tokens").whole("embedded")
        if "seconds" in fields:
            fields.object("seconds").numbers()
        if "exit_code" in fields:
            fields.maybe("exit_code", fields.whole)
    except (ValueError, RecursionError):
        return None
    return run


def read_progress(folder: Path) -> dict[str, Any]:
    """What the run in progress wrote last; nothing where that cannot be read."""
    try:
        progress: dict[str, Any] = json.loads((folder / "progress.json").read_bytes())
        fields = Fields(progress)
        for name in ("pid", "documents", "documents_total", "chunks", "tokens"):
            fields.whole(name)
        fields.number("tokens_per_s")
        fields.maybe("eta_s", fields.number)
        fields.text("phase")
    except (OSError, ValueError, RecursionError):
        return {}
    return progress


def write_progress(folder: Path, progress: Mapping[str, Any]) -> None:
    """Replace progress.json, not durably, but readers only ever see a complete file. A failure is ignored."""
    temporary = folder / ".progress.json.tmp"
    with suppress(OSError):
        with open(temporary, "w", encoding="utf-8", opener=open_file) as file:
            file.write(json.dumps(progress))
        temporary.replace(folder / "progress.json")


def read_damaged(folder: Path) -> set[str]:
    """Names of shards that `verify` or a run found damaged."""
    return {path.name for path in matching(folder / "damaged", "part-*")}


def note_damaged(folder: Path, names: Iterable[str], disk: Disk) -> None:
    """Note damaged shards, so that the next run reads their documents again. One file for each shard: no note can
    overwrite another."""
    disk.make_folder(folder / "damaged")
    for name in names:
        disk.write(folder / "damaged" / name, lambda sink: None)
