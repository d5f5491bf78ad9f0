"""The change lists of an index as one chain: what happened since a list that a loader remembers.

In: an index. Out: a Trail: the current generation, and the change lists that lead to it, as far as each names the one
before. A rollback has a list and a number of its own, so what a loader remembers is a list and not a generation.
Not here: the content of a new list (changes.py), publishing it (publish.py).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.errors import DamagedIndex, StorageError, quoted
from embedcli.index.generations import Index, current_of
from embedcli.index.manifest import Generation
from embedcli.paths import matching
from embedcli.vault.stubs import fetched

_KEY = b"embedcli"
_INCOMPLETE = {_KEY: b"incomplete"}
_TRIES = 5


@dataclass(frozen=True)
class ChangeList:
    """One change list: its number, its random id, the list before it (number and id; None where that is not known), the
    id of the first list of its index, `origin`, and the generation that it leads to, which after a rollback is an older
    one. Lists of older versions do not say that, and those of still older ones have no ids."""

    number: int
    path: Path
    id: str | None = None
    origin: str | None = None
    previous: tuple[int, str] | None = None
    generation: int | None = None

    def leads_to(self, generation: int | None) -> bool:
        """Whether whoever has applied it has this generation. One that does not say so does, if it is not older."""
        if generation is None or self.generation is None:
            return self.number >= (generation or 0)
        return self.generation == generation


@dataclass(frozen=True)
class Trail:
    """The current generation, and the change lists that lead to it, the newest first, each named by the next."""

    generation: Generation
    lists: tuple[ChangeList, ...]

    @property
    def newest(self) -> ChangeList:
        return self.lists[0]

    def since(self, list_id: str | None) -> tuple[ChangeList, ...] | None:
        """The lists after the one of that id, the newest first; None where some of them are not kept or not known."""
        return self._after(lambda known: known[1] == list_id)

    def since_number(self, number: int) -> tuple[ChangeList, ...] | None:
        """The lists after the one of that number, the newest first; None where some are not kept or not known."""
        return self._after(lambda known: known[0] == number)

    def _after(self, is_wanted: Any) -> tuple[ChangeList, ...] | None:
        for position, item in enumerate(self.lists):
            if item.id is not None and is_wanted((item.number, item.id)):
                return self.lists[:position]
        previous = self.lists[-1].previous
        return self.lists if previous is not None and is_wanted(previous) else None


def touched(lists: tuple[ChangeList, ...]) -> pa.Array:
    """The ids of all chunks that the lists name, each once. Raises StorageError."""
    parts = [_read(item.path).column("chunk_id").cast(pa.string()) for item in lists]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string()).unique()


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(fetched(path), page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        place = quoted(path)
        raise DamagedIndex(
            f"cannot read `{path}`: {error}", f"`mv {place} {place}.damaged`: what it says is then loaded in full"
        ) from error


def trail(index: Index) -> Trail:
    """What is current now, and how it came about. Raises NoIndex, StorageError.

    No lock is taken: a list that still has its pending name counts as soon as its generation is current, and where a
    run publishes between two looks, both are repeated. Where the lists were removed, or only the newest one, a list
    without an id stands for it, which nobody can follow.
    """
    for _ in range(_TRIES):
        generation = current_of(index)
        try:
            lists = _chain(_published(index, generation.number))
        except FileNotFoundError:  # renamed between the listing and the reading
            continue
        if index.linked_number() == generation.number:
            if not (lists and lists[0].leads_to(generation.number)):
                origin = lists[0].origin if lists else None
                lists = (ChangeList(generation.number, index.change_list(generation.number), origin=origin),)
            return Trail(generation, lists)
    raise StorageError(f"the change lists of `{index.shown}` change all the time", "run the same command again")


def newest_of(index: Index, generation: int) -> ChangeList | None:
    """The list that leads to this generation, which is the current one; None where it was removed."""
    lists = _chain(_published(index, generation)[-1:])
    return lists[0] if lists and lists[0].leads_to(generation) else None


def _published(index: Index, current: int) -> list[Path]:
    """The change lists in their order, the oldest first."""
    found = {int(path.stem): path for path in _files(index)}
    for path, number, target in pending(index):
        if target == current:
            found.setdefault(number, path)
    return [found[number] for number in sorted(found)]


def pending(index: Index) -> list[tuple[Path, int, int]]:
    """The lists that wait until a generation is current: each with its number and that of the generation. Raises
    OSError."""
    paths = matching(index.changes, "[0-9]*.when-*")
    numbers = (tuple(map(int, path.name.split(".when-"))) for path in paths)
    return [(path, number, generation) for path, (number, generation) in zip(paths, numbers, strict=True)]


def _files(index: Index) -> list[Path]:
    """The published change lists, the oldest first; what somebody else has put beside them is none."""
    return [path for path in matching(index.changes, "[0-9]*.parquet") if path.stem.isdigit()]


def _chain(paths: list[Path]) -> tuple[ChangeList, ...]:
    lists: list[ChangeList] = []
    for path in reversed(paths):
        item = _stamp_of(path)
        if lists and lists[-1].previous != (item.number, item.id):
            break
        lists.append(item)
    return tuple(lists)


def _stamp_of(path: Path) -> ChangeList:
    number = int(path.name.split(".")[0])
    try:
        stamp = json.loads((pq.read_schema(fetched(path)).metadata or {}).get(_KEY, b"{}"))
        previous = stamp.get("previous")
        return ChangeList(
            number, path, stamp.get("id"), stamp.get("origin"), (previous[0], previous[1]) if previous else None,
            stamp.get("generation"),
        )  # fmt: skip
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, ValueError, TypeError, AttributeError, LookupError):
        return ChangeList(number, path)  # damaged: a list that nobody can follow


def incomplete(changes: pa.Table) -> pa.Table:
    """The same changes, marked as not naming every chunk: what followed the lists so far must load everything again."""
    return changes.replace_schema_metadata(_INCOMPLETE)


def is_incomplete(changes: pa.Table) -> bool:
    """Whether they were marked so."""
    return (changes.schema.metadata or {}).get(_KEY) == _INCOMPLETE[_KEY]


def stamped(index: Index, changes: pa.Table, *, generation: int) -> pa.Table:
    """The changes that lead to this generation, with an id, and with the list that they follow: that of the present
    generation, unless it was removed, or the changes are marked incomplete."""
    before = [_stamp_of(path) for path in _files(index)[-1:]]
    last = before[0] if before and before[0].id is not None else None
    follows = last is not None and not is_incomplete(changes) and last.leads_to(index.linked_number())
    list_id = secrets.token_hex(16)
    stamp = {
        "id": list_id,
        "origin": last.origin if last else list_id,
        "previous": [last.number, last.id] if last and follows else None,
        "generation": generation,
    }
    return changes.replace_schema_metadata({_KEY: json.dumps(stamp).encode()})
