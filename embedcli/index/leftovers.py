"""The work that killed runs had finished: this run adopts each document that its plan would read the same way.

In: the staging folders of runs that did not end, the sources in the plan of this run. Out: outcomes of documents that
need no reading; all other vectors of killed runs go into the cache of known vectors.
Not here: the journal's format (staging.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcli.columns import Floats, VectorKeys
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.outcomes import Outcome
from embedcli.index.shards import Shard
from embedcli.index.staging import RunHeader, Staging, load_kept, read_journal_line
from embedcli.records import SourceKey, Stat
from embedcli.vault.disk import digest_of
from embedcli.vault.stubs import fetched


def adopt(
    leftovers: Sequence[Leftover], wanted: Mapping[SourceKey, Stat | None], *, into: Staging, library: KnownVectors
) -> dict[SourceKey, Outcome]:
    """Adopt the outcomes whose source has the same stat in `wanted`; their shards are linked into the staging `into`.

    Where two killed runs finished the same source, the later one counts. All vectors are added to `library`.
    """
    adopted: dict[SourceKey, Outcome] = {}
    found: dict[str, Shard] = {}
    for item in leftovers:
        shards_of_item, outcomes = item.load()
        found |= shards_of_item
        item.lend(shards_of_item, library)
        if _same_target(item.header, into.header):
            # of what holds documents it is not known which of them have left it
            holders = {(o.row.root, o.row.container) for o in outcomes if o.row is not None and o.row.container}
            adopted |= {
                outcome.key: outcome
                for outcome in outcomes
                if outcome.key in wanted and wanted[outcome.key] == outcome.stat and outcome.key not in holders
            }
    into.adopt(list(adopted.values()), found)
    return adopted


def _same_target(theirs: RunHeader, ours: RunHeader) -> bool:
    """Whether both runs build the same generation; its number too, as their rows hold it in `changed_in`."""
    same_settings = theirs.settings == ours.settings and theirs.fingerprints == ours.fingerprints
    return same_settings and theirs.parent == ours.parent and theirs.number == ours.number


_RUN = re.compile(r"\d{6,}-[0-9a-f]+")


@dataclass(frozen=True)
class Leftover:
    """The staging folder of a run that did not end."""

    folder: Path
    header: RunHeader

    def load(self) -> tuple[dict[str, Shard], list[Outcome]]:
        """Shards and outcomes up to the first torn or damaged line of the journal; a source's last outcome counts."""
        shards_found: dict[str, Shard] = {}
        outcomes: dict[SourceKey, Outcome] = {}
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            for data in self._lines():
                if "shard" in data:
                    shard = Shard(**data["shard"], folder=self.folder, keys_folder=self.folder)
                    if _is_whole(shard):
                        shards_found[shard.name] = shard
                elif "records" not in data:  # a container is read again, so of its records only the vectors count
                    outcome = Outcome.from_json(data)
                    outcomes[outcome.key] = outcome
        kept = (o for o in outcomes.values() if o.row is None or o.row.shard is None or o.row.shard in shards_found)
        return shards_found, list(kept)

    def lend(self, shards_found: Mapping[str, Shard], library: KnownVectors) -> None:
        """Add its vectors to the library: those of its shards, as `load` gives them, and those that are loose."""
        for shard in shards_found.values():
            library.add(shard, one_of_many=True)
        for keys, vectors in self.loose():
            library.add_loose(keys, vectors)

    def count_documents(self) -> int:
        """How many sources its journal says are finished."""
        return sum(data.get("records", "shard" not in data) for data in self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            with (self.folder / "journal.jsonl").open("rb") as journal:
                yield from map(read_journal_line, journal)
        except (OSError, ValueError, RecursionError):
            return

    def loose(self) -> Iterator[tuple[VectorKeys, Floats]]:
        """Sorted keys [3, n] and vectors of documents that were not finished; damaged files are skipped."""
        for path in sorted(self.folder.glob("loose-*.vectors.npy")):
            keys, vectors = load_kept(path.with_name(path.name.replace(".vectors", ""))), load_kept(path)
            if keys is not None and vectors is not None:
                yield keys, vectors

    def probe(self) -> Floats | None:
        """The probe set as that run's engine embedded it; None where the run was killed before."""
        return load_kept(self.folder / "probe.npy")


def _is_whole(shard: Shard) -> bool:
    """Whether the shard's digest is right, so that it may be published unchanged."""
    try:
        return digest_of(fetched(shard.path)) == shard.sha256
    except OSError:
        return False


def run_folders(parent_folder: Path) -> list[Path]:
    """The folders in `staging/` with the name of a run, the oldest first; other folders are not ours to touch."""
    return sorted(path for path in parent_folder.iterdir() if _RUN.fullmatch(path.name))


def leftovers(parent_folder: Path) -> list[Leftover]:
    """The leftovers of all runs that did not end, the oldest first."""
    found = []
    for folder in run_folders(parent_folder) if parent_folder.exists() else ():
        try:
            found.append(Leftover(folder, RunHeader.of(json.loads((folder / "run.json").read_bytes()))))
        except (OSError, ValueError, RecursionError):
            continue
    return found
