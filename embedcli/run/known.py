"""What the index says before a run: its current generation, what killed runs have left, and what is damaged.

In: an index folder, and what was asked. Out: one frozen record, read once a run.
Not here: what is there to do (plan.py), with which settings (settings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from embedcli import config
from embedcli.config import IndexSettings, Options
from embedcli.errors import InputError, Mismatch, NoIndex, quoted
from embedcli.fields import Fields
from embedcli.index import damage, documents, state
from embedcli.index.documents import Mark
from embedcli.index.leftovers import leftovers
from embedcli.index.tables.spilled import spilled
from embedcli.records import Root
from embedcli.run.memory import map_large_buffers

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.leftovers import Leftover
    from embedcli.index.manifest import Generation


@dataclass(frozen=True)
class Memory:
    """The settings that a run continues: those of the current generation, or of a killed run that was the first run
    or a rebuild. None and the empty fingerprint if there is neither."""

    settings: IndexSettings | None = None
    model_fingerprint: str = ""


@dataclass(frozen=True)
class Known:
    """What the index says before the run.

    `table`: the documents of the current generation, with what was `seen` of them since it was published; documents of
    `damaged` shards look as if they had never been read.
    """

    current: Generation | None
    leftovers: tuple[Leftover, ...]
    memory: Memory
    roots: tuple[Root, ...]
    rebuilding: bool
    damaged: frozenset[str]
    table: pa.Table
    seen: tuple[Mark, ...]
    lacks_probe: bool = False
    """Whether the probe set is damaged: a run makes it again, even one that has nothing else to do."""

    @property
    def parent(self) -> int | None:
        """The number of the current generation."""
        return self.current.number if self.current else None


def look(index: Index, asked: Options) -> Known:
    """Read the index's memory. Raises NoIndex (exit 10), Mismatch (exit 12), InputError (exit 15)."""
    map_large_buffers()  # from the first large table on
    current = index.current()
    found = tuple(leftovers(index.staging))
    parent = current.number if current else None
    newest = next((item for item in reversed(found) if item.header.parent == parent), None)
    roots = current.roots if current else () if asked.names_sources else _roots_of(newest)
    _check_roots(index, asked, current, roots)
    memory, rebuilding = _memory(asked, newest, current)
    damaged = frozenset(index.damaged(current)) if current else frozenset()
    table, seen = known_documents(index, current, damaged)
    lacks_probe = current is not None and not index.has_sound_probe(current)
    return Known(
        current, found, memory, roots, rebuilding=rebuilding, damaged=damaged, table=table, seen=tuple(seen),
        lacks_probe=lacks_probe,
    )  # fmt: skip


def _check_roots(index: Index, asked: Options, current: Generation | None, roots: Sequence[Root]) -> None:
    if asked.names_sources or roots:
        return
    if current is not None:
        raise InputError(
            f"index `{index.shown}` has no roots any more, and no SOURCE was given",
            f"name what to index: `embedcli ingest docs/ --index {quoted(index.shown)}`",
        )
    raise no_index(index)


def no_index(index: Index) -> NoIndex:
    return NoIndex(
        f"`{index.shown}` is not an index, and no SOURCE was given",
        "name what to index: `embedcli ingest docs/ --index INDEX`",
    )


def _memory(asked: Options, newest: Leftover | None, current: Generation | None) -> tuple[Memory, bool]:
    """The settings to continue, and whether every document is embedded anew under them. Raises Mismatch."""
    if newest is not None and _goes_on(asked, newest, current):
        settings = IndexSettings.of(Fields(newest.header.settings))
        return Memory(settings, newest.header.fingerprints["model"]), newest.header.rebuild
    if current is None:
        return Memory(), asked.rebuild
    if not asked.rebuild:
        config.check_against_memory(asked, current.settings)
    return Memory(current.settings, current.fingerprints.model), asked.rebuild


def _goes_on(asked: Options, item: Leftover, current: Generation | None) -> bool:
    """Whether this run takes up the settings of a killed one: a first run, or a rebuild, that no flag contradicts."""
    settings = IndexSettings.of(Fields(item.header.settings))
    if asked.rebuild or asked.model not in (None, settings.model) or (current and not item.header.rebuild):
        return False
    try:
        config.check_against_memory(asked, settings)
    except Mismatch:
        return False
    return True


def _roots_of(item: Leftover | None) -> tuple[Root, ...]:
    """The roots of a first run that was killed before it published."""
    return tuple(Root.of(Fields(root)) for root in (item.header.roots if item else ()))


def known_documents(
    index: Index, current: Generation | None, damaged: frozenset[str]
) -> tuple[pa.Table, Sequence[Mark]]:
    """The documents of the current generation as a run sees them, and the marks that were put on them since."""
    if current is None:
        return documents.empty(), ()
    seen = state.read_seen(index.state, current.number)
    return damage.as_unread(table_of(index, current, seen), damaged), seen


def table_of(index: Index, generation: Generation, seen: Sequence[Mark] = ()) -> pa.Table:
    """The documents of a generation with what was `seen` of them since: a large table lies in a file, mapped. Raises
    StorageError."""
    amendment = documents.Amendment(seen)
    parts = (amendment.of(part) for part in index.documents_in_parts(generation.number))
    return spilled(parts, documents.SCHEMA, index.staging)
