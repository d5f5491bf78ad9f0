"""TODO run.known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedcli import config
from embedcli.config import IndexSettings, Options
from embedcli.engines.probe import Reference
from embedcli.errors import InputError, Mismatch, NoIndex
from embedcli.fingerprints import PROBE_VERSION
from embedcli.index import damage, documents, shards, state
from embedcli.index.leftovers import leftovers
from embedcli.records import Root
from embedcli.report import Report

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.leftovers import Leftover
    from embedcli.index.manifest import Generation


@dataclass(frozen=True)
class Before:
    """What the index says before the run: its current generation, and what runs that did not end have left.

    `settings` and `model_fingerprint` are those to go on with: of the current generation, or of a killed run that
    was the first, or was a rebuild.
    """

    current: Generation | None
    leftovers: tuple[Leftover, ...]
    settings: IndexSettings | None
    model_fingerprint: str
    roots: tuple[Root, ...]
    rebuilding: bool


def look(index: Index, asked: Options, report: Report, *, quiet: bool = False) -> Before:
    """Read the index's memory. Raises NoIndex (exit 10) and Mismatch (exit 12)."""
    index.check()
    current = index.current()
    found = leftovers(index.staging)
    parent = current.number if current else None
    newest = next((item for item in reversed(found) if item.header.parent == parent), None)
    roots = current.roots if current else () if asked.sources else _roots_of(newest)
    if current is not None and not asked.sources and not roots:
        raise InputError(
            f"index `{index.folder}` has no roots any more, and no SOURCE was given",
            f"name what to index: `embedcli ingest docs/ --index {index.folder}`",
        )
    if not asked.sources and not roots:
        raise NoIndex(
            f"`{index.folder}` is not an index, and no SOURCE was given",
            "name what to index: `embedcli ingest docs/ --index INDEX`",
        )
    if newest is not None and _goes_on(asked, newest, current):
        settings = IndexSettings.from_json(newest.header.settings)
        known = Before(
            current, tuple(found), settings, newest.header.fingerprints["model"], roots, newest.header.rebuild
        )
    else:
        if current is not None and not asked.rebuild:
            config.check_against_memory(asked, current.settings)
        fingerprint = current.fingerprints.model if current else ""
        known = Before(current, tuple(found), current.settings if current else None, fingerprint, roots, asked.rebuild)
    if not quiet:
        report.line(f"{'index' if current else 'new index'} {index.folder}")
    return known


def _goes_on(asked: Options, item: Leftover, current: Generation | None) -> bool:
    """Whether this run takes up the settings of a killed one: a first run, or a rebuild, that no flag contradicts."""
    settings = IndexSettings.from_json(item.header.settings)
    if asked.rebuild or asked.model not in (None, settings.model) or (current and not item.header.rebuild):
        return False
    try:
        config.check_against_memory(asked, settings)
    except Mismatch:
        return False
    return True


def _roots_of(item: Leftover | None) -> tuple[Root, ...]:
    """The roots of a first run that was killed before it published."""
    return tuple(
        Root(**{**root, "include": tuple(root["include"]), "exclude": tuple(root["exclude"])})
        for root in (item.header.roots if item else ())
    )


def base_table(index: Index, known: Before, damaged: set[str]) -> tuple[Any, list[documents.Mark]]:
    """The documents of the current generation with what was seen of them since, and those marks."""
    if known.current is None:
        return documents.empty(), []
    remembered = state.read_seen(index.state, known.current.number)
    table = documents.amend(index.documents(known.current.number), remembered)
    return damage.as_unread(table, damaged), remembered


def known_reference(
    index: Index, current: Generation | None, leftovers: Sequence[Leftover], *, model_fingerprint: str, dim: int
) -> Reference | None:
    """What an earlier run of this model left, in the published generation or in one that was killed."""
    found = []
    same_rows = current is not None and current.probe_version == PROBE_VERSION
    if current is not None and same_rows and current.fingerprints.model == model_fingerprint:
        found.append(Reference(index.probe(current.number), current.probe_max_tokens))
    for item in leftovers:
        vectors = item.probe()
        if vectors is not None and item.header.fingerprints["model"] == model_fingerprint:
            found.append(Reference(vectors, int(item.header.settings["max_tokens"])))
    wide = (one for one in found if len(one.vectors) and one.vectors.shape[1] >= dim)
    first = next(wide, None)
    return None if first is None else Reference(shards.cut(first.vectors, dim), first.max_tokens)
