"""The work that killed runs had finished: this run adopts each document that its plan would read the same way.

In: the staging folders of runs that did not end, the sources in the plan of this run. Out: outcomes of documents that
need no reading; all other vectors of killed runs go into the cache of known vectors.
Not here: the journal's format (staging.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcli.columns import Floats, VectorKeys
from embedcli.index.known_vectors import KnownVectors
from embedcli.index.outcomes import Outcome, Stored
from embedcli.index.shards import Shard
from embedcli.index.staging import WRITER, RunHeader, Staging, load_kept, read_journal_line
from embedcli.paths import exists, is_folder, matching
from embedcli.records import MOMENT_REASONS, SourceKey, Stat
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
            holders = _holders(outcomes)
            adopted |= {
                outcome.key: outcome
                for outcome in outcomes
                if outcome.key in wanted
                and wanted[outcome.key] == outcome.stat
                and outcome.key not in holders
                and outcome.reason not in MOMENT_REASONS  # every run tries again
            }
    into.adopt(Stored(list(adopted.values()), []), found)
    return adopted


def _same_target(theirs: RunHeader, ours: RunHeader) -> bool:
    """Whether both runs build the same generation; its number too, as their rows hold it in `changed_in`."""
    same_settings = theirs.settings == ours.settings and theirs.fingerprints == ours.fingerprints
    return same_settings and theirs.parent == ours.parent and theirs.number == ours.number


_RUN = re.compile(r"\d{6,}-[0-9a-f]+")


@dataclass(frozen=True)
class Leftover:
    """The staging folder of a run that did not end, with the folders of its writers, if it had any (cluster/).

    A writer is a worker of a cluster: what it stored and the run had not yet adopted is in its folder alone.
    """

    folder: Path
    header: RunHeader

    def load(self) -> tuple[dict[str, Shard], list[Outcome]]:
        """Shards and outcomes up to the first torn or damaged line of each journal. A source's last outcome counts, and
        the run's own more than a writer's."""
        shards_found: dict[str, Shard] = {}
        outcomes: dict[SourceKey, Outcome] = {}
        for folder in self._folders():
            shards_there, outcomes_there = _read_journal(folder, known=shards_found)
            shards_found |= shards_there
            outcomes |= {outcome.key: outcome for outcome in outcomes_there}
        return shards_found, list(outcomes.values())

    def _folders(self) -> list[Path]:
        return [*writer_folders(self.folder), self.folder]

    def lend(self, shards_found: Mapping[str, Shard], library: KnownVectors) -> None:
        """Add its vectors to the library: those of its shards, as `load` gives them, and those that are loose."""
        for shard in shards_found.values():
            library.add(shard, one_of_many=True)
        for keys, vectors in self.loose():
            library.add_loose(keys, vectors)

    def lend_unread(self, library: KnownVectors) -> None:
        """The same without reading every shard to its end: what is damaged is found when a vector is taken."""
        named: dict[str, Shard] = {}
        for folder in self._folders():
            named |= _named_in(folder)[0]
        self.lend(named, library)

    def count_documents(self) -> int:
        """How many sources its journal says are finished."""
        return sum(data.get("records", "shard" not in data) for data in _lines(self.folder / "journal.jsonl"))

    def loose(self) -> Iterator[tuple[VectorKeys, Floats]]:
        """Sorted keys [3, n] and vectors of documents that were not finished; damaged files are skipped."""
        for folder in self._folders():
            for path in matching(folder, "loose-*.vectors.npy"):
                keys, vectors = load_kept(path.with_name(path.name.replace(".vectors", ""))), load_kept(path)
                if keys is not None and vectors is not None:
                    yield keys, vectors

    def probe(self) -> Floats | None:
        """The probe set as that run's engine embedded it; None where the run was killed before."""
        return load_kept(self.folder / "probe.npy")


def _read_journal(folder: Path, *, known: Mapping[str, Shard]) -> tuple[dict[str, Shard], list[Outcome]]:
    """The whole shards that a journal names, and the outcomes whose rows lie in them. A shard that is `known` is not
    read again: it is linked from a writer's folder."""
    named, outcomes = _named_in(folder)
    shards_found = {name: known.get(name, shard) for name, shard in named.items() if name in known or _is_whole(shard)}
    return shards_found, [outcome for outcome in outcomes if outcome.shard is None or outcome.shard in shards_found]


def _named_in(folder: Path) -> tuple[dict[str, Shard], list[Outcome]]:
    """What a journal names, whether its shards are whole or not."""
    shards_named: dict[str, Shard] = {}
    outcomes: dict[SourceKey, Outcome] = {}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        for data in _lines(folder / "journal.jsonl"):
            if "shard" in data:
                shard = Shard(**data["shard"], folder=folder, keys_folder=folder)
                shards_named[shard.name] = shard
            elif "records" not in data:  # a container is read again, so of its records only the vectors count
                outcome = Outcome.from_json(data)
                outcomes[outcome.key] = outcome
    return shards_named, list(outcomes.values())


def finished_by(writer: Path, wanted: Collection[SourceKey]) -> tuple[dict[str, Shard], list[Outcome]]:
    """Which of these sources a lost writer had finished, with the shards of their rows; none that holds documents, as
    in `adopt`."""
    named, outcomes = _named_in(writer)
    holders = _holders(outcomes)
    chosen = [o for o in outcomes if o.key in wanted and o.key not in holders and o.reason not in MOMENT_REASONS]
    needed = {outcome.shard for outcome in chosen} & named.keys()
    whole = {name: named[name] for name in needed if name is not None and _is_whole(named[name])}
    return whole, [outcome for outcome in chosen if outcome.shard is None or outcome.shard in whole]


def _holders(outcomes: Sequence[Outcome]) -> set[SourceKey]:
    """The sources that hold documents: of these it is not known which have left them."""
    return {(o.row.root, o.row.container) for o in outcomes if o.row is not None and o.row.container}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal up to the first one that is torn or damaged."""
    try:
        with path.open("rb") as journal:
            yield from map(read_journal_line, journal)
    except (OSError, ValueError, RecursionError):
        return


def _is_whole(shard: Shard) -> bool:
    """Whether the shard's digest is right, so that it may be published unchanged."""
    try:
        return digest_of(fetched(shard.path)) == shard.sha256
    except OSError:
        return False


def writer_folders(run_folder: Path) -> list[Path]:
    """The folders of the writers of a run; none where workers have not stored anything for it."""
    try:
        return sorted(path for path in run_folder.iterdir() if path.name.startswith(WRITER) and is_folder(path))
    except OSError:
        return []


def run_folders(parent_folder: Path) -> list[Path]:
    """The folders in `staging/` with the name of a run, the oldest first; other folders are not ours to touch."""
    return sorted(path for path in parent_folder.iterdir() if _RUN.fullmatch(path.name))


def count_waiting(parent_folder: Path) -> int:
    """How many documents that the next run publishes, if it is a plain one, were finished by runs that did not end: the
    last of them, and those before it that had its target."""
    found = leftovers(parent_folder)
    return sum(item.count_documents() for item in found if _same_target(item.header, found[-1].header))


def leftovers(parent_folder: Path) -> list[Leftover]:
    """The leftovers of all runs that did not end, the oldest first."""
    found = []
    for folder in run_folders(parent_folder) if exists(parent_folder) else ():
        try:
            found.append(Leftover(folder, RunHeader.of(json.loads((folder / "run.json").read_bytes()))))
        except (OSError, ValueError, RecursionError):
            continue
    return found
