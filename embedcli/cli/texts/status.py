"""The text that `embedcli status` prints.

In: an IndexStatus. Out: lines of at most 80 columns, each part after its label.
Not here: collecting the status (verbs/status.py), the command (cli/status.py).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from embedcli.report import duration, many, one_line
from embedcli.verbs.status import IndexStatus

WIDTH = 80
_LABEL = 11


def status_lines(found: IndexStatus) -> list[str]:
    """The status for people: each label with its values, wrapped at 80 columns; a path is never cut."""
    parts: list[tuple[str, list[str]]] = [("index", [found.index]), ("generation", [_generation_text(found)])]
    if found.generation is not None:
        settings = found.settings
        commit = f" at {settings['commit'][:12]}" if settings["commit"] else ""
        parts += [
            ("model", [f"{settings['model']}{commit}"]),
            ("vectors", [f"{settings['dim']:,} dimensions, max_tokens {settings['max_tokens']:,}, "
                         f"overlap {settings['overlap']}, built on {settings['device_kind']}"]),
            ("roots", [_root_text(root) for root in found.roots] or ["none"]),
            ("sources", [_counts_text(found.sources["total"], found.sources), *_reasons_text(found)]),
            ("chunks", [f"{many(found.chunks, 'chunk')}, {many(found.tokens, 'token')}, {found.bytes / 1e6:,.1f} MB"]),
        ]  # fmt: skip
        if any(found.older.values()):
            older = f"{many(found.older['read'], 'source')} read and {found.older['chunk']:,} cut by an earlier version"
            parts.append(("older", [f"{older}; `embedcli ingest --reread` reads them again"]))
    parts.append(("runs", [_run_text(run) for run in found.runs] or ["no run has ended yet"]))
    if found.running is not None:
        parts.append(("running", [_running_text(found.running)]))
    if found.waiting:
        were = "was" if found.waiting == 1 else "were"
        waiting = f"{many(found.waiting, 'document')} {were} finished by an interrupted run"
        parts.append(("waiting", [f"{waiting}; the next `embedcli ingest` publishes the work"]))
    return [line for label, values in parts for line in _block(label, values)]


def _block(label: str, values: list[str]) -> list[str]:
    lines = []
    for value in values:
        lines += textwrap.wrap(
            one_line(value), WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=" " * _LABEL,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        label = ""
    return lines


def _generation_text(found: IndexStatus) -> str:
    if found.generation is None or found.created_at is None:
        return "none yet"
    state = "complete" if found.complete else "not complete: a run is adding to it, or the next `embedcli ingest` will"
    return f"{found.generation}, {when(found.created_at)}, {state}"


def _root_text(root: Mapping[str, Any]) -> str:
    filters = [f"{name} {' '.join(root[name])}" for name in ("include", "exclude") if root[name]]
    filters += ["gitignore"] if root["gitignore"] else []
    return f"{root['path']} ({many(root['sources'], 'source')}{''.join(f', {item}' for item in filters)})"


def _counts_text(total: int, counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name != "total")
    return f"{total:,}: {parts}" if parts else "none"


def _reasons_text(found: IndexStatus) -> list[str]:
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
    published = "nothing published" if run["generation"] is None else f"generation {run['generation']}"
    return f"{took}{rate}, {published}: {did or 'no sources'}"


def _running_text(running: Mapping[str, Any]) -> str:
    text = f"pid {running['pid']} on {running['host']} since {when(running['since'])}"
    if running["alive"] is None:
        text += " (another host: this one cannot see whether the run is alive)"
    if "phase" in running:
        eta = f", {duration(running['eta_s'])} to go" if running["eta_s"] is not None else ""
        text += (
            f"; {running['phase']}: {running['documents']:,}/{running['documents_total']:,} documents,"
            f" {many(running['chunks'], 'chunk')}, {running['tokens_per_s']:,.0f} tokens/s{eta}"
        )
    return text


def when(iso: str) -> str:
    """A time of a manifest or a history line, in ISO format and UTC, as `2026-11-24 00:08 UTC`."""
    return f"{iso[:10]} {iso[11:16]} UTC"
