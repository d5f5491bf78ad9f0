"""What killed runs have finished, taken over where it equals tonight's plan.

In: the staging folders of runs that did not end, tonight's tasks. Out: outcomes that need no reading any more; every
other vector of theirs goes into the library, to be reused.
Not here: the journal's format (staging.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcli.columns import Floats, VectorKeys
from embedcli.index import shards
from embedcli.index.disk import digest_of
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.outcomes import Outcome
from embedcli.index.shards import Shard
from embedcli.index.staging import RunHeader, Staging
from embedcli.records import SourceKey, Stat


def adopt(
    leftovers: Sequence[Leftover], wanted: Mapping[SourceKey, Stat | None], *, into: Staging, library: KnownVectors
) -> dict[SourceKey, Outcome]:
    """Outcomes that equal tonight's plan, their shards now named in `into`; a later run's count more."""
    adopted: dict[SourceKey, Outcome] = {}
    found: dict[str, Shard] = {}
    for item in leftovers:
        shards_of_item, outcomes = item.load()
        found |= shards_of_item
        for shard in shards_of_item.values():
            library.add(shard, one_of_many=True)
        for keys, vectors in item.loose():
            library.add_loose(keys, vectors)
        if _same_aim(item.header, into.header):
            adopted |= {
                outcome.key: outcome
                for outcome in outcomes
                if outcome.key in wanted and wanted[outcome.key] == outcome.stat
            }
    into.adopt(list(adopted.values()), found)
    return adopted


def _same_aim(theirs: RunHeader, ours: RunHeader) -> bool:
    """The number too: it is what their rows say that they changed in."""
    same_settings = theirs.settings == ours.settings and theirs.fingerprints == ours.fingerprints
    return same_settings and theirs.parent == ours.parent and theirs.number == ours.number


_RUN = re.compile(r"\d{6,}-[0-9a-f]+")


@dataclass(frozen=True)
class Leftover:
    """What a run that did not end has left."""

    folder: Path
    header: RunHeader

    def load(self) -> tuple[dict[str, Shard], list[Outcome]]:
        """Shards and outcomes, as far as the journal is whole; the last outcome of a source is the one that counts."""
        shards_found: dict[str, Shard] = {}
        outcomes: dict[SourceKey, Outcome] = {}
        for data in self._lines():
            if "shard" in data:
                shard = Shard(**data["shard"], folder=self.folder, keys_folder=self.folder)
                if _is_whole(shard):
                    shards_found[shard.name] = shard
            else:
                outcome = Outcome.from_json(data)
                outcomes[outcome.key] = outcome
        kept = (o for o in outcomes.values() if o.row is None or o.row.shard is None or o.row.shard in shards_found)
        return shards_found, list(kept)

    def count_documents(self) -> int:
        """How many sources its journal says are finished."""
        try:
            with (self.folder / "journal.jsonl").open("rb") as journal:
                return sum(not line.startswith(b'{"shard"') for line in journal)
        except OSError:
            return 0

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            with (self.folder / "journal.jsonl").open("rb") as journal:
                for line in journal:
                    if not line.endswith(b"\n"):
                        return  # torn
                    yield json.loads(line)
        except (OSError, ValueError):
            return

    def loose(self) -> Iterator[tuple[VectorKeys, Floats]]:
        """Sorted keys [3, n] and vectors of documents that were not finished; what is not whole is passed over."""
        for path in sorted(self.folder.glob("loose-*.vectors.npy")):
            keys = shards.load_keys(path.with_name(path.name.replace(".vectors", "")))
            if keys is not None:
                yield keys, np.load(path, mmap_mode="r", allow_pickle=False)

    def probe(self) -> Floats | None:
        """The probe set as that run's engine embedded it, if it came to that."""
        return _read_probe(self.folder)


def _is_whole(shard: Shard) -> bool:
    """Its bytes are those that were written: it may be published as it is."""
    try:
        return digest_of(shard.path) == shard.sha256
    except OSError:
        return False


def run_folders(parent_folder: Path) -> list[Path]:
    """Folders that are named as runs name theirs, the oldest first; anything else in `staging/` is somebody's."""
    return sorted(path for path in parent_folder.iterdir() if _RUN.fullmatch(path.name))


def leftovers(parent_folder: Path) -> list[Leftover]:
    """What is left of runs that did not end, the oldest first."""
    found = []
    for folder in run_folders(parent_folder) if parent_folder.exists() else ():
        try:
            found.append(Leftover(folder, RunHeader(**json.loads((folder / "run.json").read_bytes()))))
        except (OSError, ValueError, TypeError):
            continue
    return found


def _read_probe(folder: Path) -> Floats | None:
    try:
        vectors: Floats = np.load(folder / "probe.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return vectors
