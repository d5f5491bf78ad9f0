"""TODO cli.status_text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from embedcli.report import duration, many, one_line
from embedcli.verbs.status import IndexStatus

WIDTH = 80
_LABEL = 11


# ---- as text


def status_lines(found: IndexStatus) -> list[str]:
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


def _generation_text(found: IndexStatus) -> str:
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
