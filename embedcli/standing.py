"""How an index stands: its generation, sources by state, the last runs, the run in progress.

In: an index. Out: what a published generation, `state/` and the lock file say. Nothing is written and no lock is
taken, so it works while a run is under way.
Not here: looking for damage (verifying.py), the flags (keeper_cli.py).
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedcli import chunker, config, documents, readers
from embedcli.generations import Index
from embedcli.manifest import Generation
from embedcli.records import Root, printable
from embedcli.report import duration, many
from embedcli.staging import leftovers
from embedcli.verifying import current_of

RUNS_SHOWN = 5
_TAIL_BYTES = 64 << 10
_TROUBLED = ("failed", "partial", "stale")
WIDTH = 80
_LABEL = 11


@dataclass(frozen=True)
class Holder:
    """What the lock file says. `alive`: whether that process runs on this host; None when it is another host's."""

    host: str
    pid: int
    since: str
    alive: bool | None


@dataclass(frozen=True)
class Standing:
    """What `status` tells. `older`: documents read or cut by an earlier version; `running`: lock and progress;
    `waiting`: documents that runs which did not end had finished, None while one is running."""

    index: str
    generation: int | None
    parent: int | None
    complete: bool
    created_at: str | None
    settings: dict[str, Any]
    roots: list[dict[str, Any]]
    sources: dict[str, int]
    reasons: dict[str, int]
    chunks: int
    tokens: int
    bytes: int
    older: dict[str, int]
    runs: list[dict[str, Any]]
    running: dict[str, Any] | None
    waiting: int | None


def status(index: Index, *, clock: Callable[[], float] = time.time) -> Standing:
    """How the index stands. Raises NoIndex where there is neither a generation nor a run."""
    index.check()
    running = _running(index, clock)
    waiting = None if running else sum(item.count_documents() for item in leftovers(index.staging))
    current = index.current() if running or waiting else current_of(index)
    beside: dict[str, Any] = {"runs": _last_runs(index), "running": running, "waiting": waiting}
    if current is None:
        return Standing(str(index.folder), None, None, False, None, {}, [], {}, {}, 0, 0, 0, {}, **beside)
    table = index.documents(
        current.number, ["root", "status", "reason", "rows", "chunk_fingerprint", "read_fingerprint"]
    )
    by_root = documents.count_by(table, "root")
    return Standing(
        str(index.folder), current.number, current.parent, current.complete, current.created_at,
        current.settings.to_json(),
        [
            {"path": shown_path(root), "include": root.include, "exclude": root.exclude, "gitignore": root.gitignore,
             "sources": by_root.get(root.id, 0)}
            for root in current.roots
        ],
        {"total": table.num_rows, **documents.count_by(table, "status")},
        documents.count_by(table, "reason"),
        current.counts["chunks"], current.counts["tokens"], current.counts["bytes"],
        _older(table, current), **beside,
    )  # fmt: skip


def shown_path(root: Root) -> str:
    return printable(os.fsencode(root.path))


def _older(table: pa.Table, current: Generation) -> dict[str, int]:
    """How many documents a run of this version would read or cut otherwise, if it were asked to `--reread`."""
    now = {
        "read": config.read_fingerprint(readers.READ_VERSION),
        "chunk": config.chunk_fingerprint(
            current.settings.tokenizer_digest, max_tokens=current.settings.max_tokens,
            overlap=current.settings.overlap, boundary_version=chunker.BOUNDARY_VERSION,
        ),
    }  # fmt: skip
    with_rows = table.filter(pc.greater(table.column("rows"), 0))
    return {
        name: with_rows.num_rows - documents.count_by(with_rows, f"{name}_fingerprint").get(fingerprint, 0)
        for name, fingerprint in now.items()
    }


def _last_runs(index: Index) -> list[dict[str, Any]]:
    """The last lines of runs.jsonl, the newest first; what is torn is passed over."""
    try:
        with (index.state / "runs.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    runs = []
    for line in reversed(lines):
        try:
            runs.append(json.loads(line))
        except ValueError:
            continue
    return runs[:RUNS_SHOWN]


def _running(index: Index, clock: Callable[[], float]) -> dict[str, Any] | None:
    """The run that holds the lock, with the progress it wrote last and an ETA as of now."""
    holder = read_holder(index)
    if holder is None or holder.alive is False:
        return None
    try:
        file = index.state / "progress.json"
        progress, age_s = json.loads(file.read_bytes()), clock() - file.stat().st_mtime
    except (OSError, ValueError):
        progress, age_s = {}, 0.0
    if progress.get("pid") != holder.pid:
        progress = {}  # of a run before
    elif progress["eta_s"] is not None:
        progress["eta_s"] = round(max(0.0, progress["eta_s"] - age_s), 1)
    return {**dataclasses.asdict(holder), **progress}


def read_holder(index: Index, *, locks: Path = Path("/proc/locks")) -> Holder | None:
    """Who is written in the lock file, None where nobody is. Reads; a lock tried, even for a moment, is one taken."""
    path = index.folder / "lock"
    try:
        data, inode = json.loads(path.read_bytes()), path.stat().st_ino
        host, pid, since = str(data["host"]), int(data["pid"]), str(data["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Holder(host, pid, since, _holds(pid, inode, locks) if host == socket.gethostname() else None)


def _holds(pid: int, inode: int, locks: Path) -> bool:
    """Whether a process of that number is here and, where the system tells, holds that lock: numbers are used again.

    The inode says enough: the device that is told differs from the file's own on btrfs and overlays.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        lines = [line.split() for line in locks.read_text().splitlines()]
    except OSError:
        return True
    return any(line[4] == str(pid) and line[5].endswith(f":{inode}") for line in lines if len(line) > 5)


def troubled(index: Index, *, reason: str | None = None) -> pa.Table:
    """status, reason, uri of the sources that failed, are partial or stale; or of all that have `reason`."""
    current = current_of(index)
    table = index.documents(current.number, ["status", "reason", "uri"])
    if reason is not None:
        return table.filter(pc.equal(table.column("reason"), reason))
    return table.filter(pc.is_in(table.column("status"), value_set=pa.array(_TROUBLED)))


# ---- as text


def status_lines(found: Standing) -> list[str]:
    """The status for people: a label, then what it says, wrapped at 80 columns; a path is never cut."""
    said: list[tuple[str, list[str]]] = [("index", [found.index]), ("generation", [_generation_text(found)])]
    if found.generation is not None:
        settings = found.settings
        commit = f" at {settings['commit'][:12]}" if settings["commit"] else ""
        said += [
            ("model", [f"{settings['model']}{commit}"]),
            ("vectors", [f"{settings['dim']:,} dimensions, max_tokens {settings['max_tokens']:,}, "
                         f"overlap {settings['overlap']}, built on {settings['device_kind']}"]),
            ("roots", [_root_text(root) for root in found.roots] or ["none"]),
            ("sources", [_counts_text(found.sources["total"], found.sources), *_reasons_text(found)]),
            ("chunks", [f"{found.chunks:,} chunks, {found.tokens:,} tokens, {found.bytes / 1e6:,.1f} MB"]),
        ]  # fmt: skip
        if any(found.older.values()):
            older = f"{many(found.older['read'], 'source')} read and {found.older['chunk']:,} cut by an earlier version"
            said.append(("older", [f"{older}; `ingest --reread` renews them"]))
    said.append(("runs", [_run_text(run) for run in found.runs] or ["none has ended yet"]))
    if found.running is not None:
        said.append(("running", [_running_text(found.running)]))
    if found.waiting:
        waiting = f"{many(found.waiting, 'document')} that a run which did not end had finished"
        said.append(("waiting", [f"{waiting}; the next `ingest` goes on with them"]))
    return [line for label, values in said for line in _block(label, values)]


def _block(label: str, values: list[str]) -> list[str]:
    lines = []
    for value in values:
        lines += textwrap.wrap(
            one_line(value), WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=" " * _LABEL,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        label = ""
    return lines


def _generation_text(found: Standing) -> str:
    if found.generation is None or found.created_at is None:
        return "none yet"
    whole = "complete" if found.complete else "not complete: the run that makes it goes on, or waits for the next"
    return f"{found.generation}, {when(found.created_at)}, {whole}"


def _root_text(root: Mapping[str, Any]) -> str:
    filters = [f"{name} {' '.join(root[name])}" for name in ("include", "exclude") if root[name]]
    filters += ["gitignore"] if root["gitignore"] else []
    return f"{root['path']} ({many(root['sources'], 'source')}{''.join(f', {item}' for item in filters)})"


def _counts_text(total: int, counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name != "total")
    return f"{total:,}: {parts}" if parts else "none"


def _reasons_text(found: Standing) -> list[str]:
    return [", ".join(f"{count:,} {reason}" for reason, count in found.reasons.items())] if found.reasons else []


def _run_text(run: Mapping[str, Any]) -> str:
    took = f"{when(run['ended_at'])}, {duration(run['elapsed_s'])}"
    if run.get("exit_code") not in (None, 0, 3):
        return f"{took}, exit {run['exit_code']}: {run.get('error') or 'a bug in embedcli'}"
    rate = f", {run['tokens_per_s']:,.0f} tokens/s" if run.get("tokens_per_s") else ""
    if "verb" not in run:
        did = ", ".join(f"{count:,} {name}" for name, count in run["sources"].items() if count)
    else:
        did = f"{run['verb']}, {many(run['sources'], 'source')}"
    return f"{took}{rate}, generation {run['generation']}: {did}"


def _running_text(running: Mapping[str, Any]) -> str:
    text = f"pid {running['pid']} on {running['host']} since {when(running['since'])}"
    if running["alive"] is None:
        text += " (another host: whether it lives cannot be seen from here)"
    if "phase" in running:
        eta = f", {duration(running['eta_s'])} to go" if running["eta_s"] is not None else ""
        text += (
            f"; {running['phase']}: {running['documents']:,}/{running['documents_total']:,} documents,"
            f" {running['chunks']:,} chunks, {running['tokens_per_s']:,.0f} tokens/s{eta}"
        )
    return text


def when(iso: str) -> str:
    """`2026-11-24 00:08 UTC` of what the manifest and the runs say."""
    return f"{iso[:10]} {iso[11:16]} UTC"


def one_line(text: str) -> str:
    """A name may hold a line's end or worse; on a screen it may not."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
