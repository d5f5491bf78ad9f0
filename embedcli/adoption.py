"""What killed runs have finished, taken over where it equals tonight's plan.

In: the staging folders of runs that did not end, tonight's tasks. Out: outcomes that need no reading any more; every
other vector of theirs goes into the library, to be reused.
Not here: the journal's format (staging.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedcli.documents import Key
from embedcli.library import Library
from embedcli.shards import Shard
from embedcli.staging import Leftover, Outcome, RunHeader, Staging
from embedcli.tasks import Task


def adopt(
    leftovers: Sequence[Leftover], tasks: Mapping[Key, Task], *, into: Staging, library: Library
) -> dict[Key, Outcome]:
    """Outcomes that equal tonight's plan, their shards now named in `into`; a later run's count more."""
    adopted: dict[Key, Outcome] = {}
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
                if (task := tasks.get(outcome.key)) is not None and task.source.stat == outcome.stat
            }
    into.adopt(list(adopted.values()), found)
    return adopted


def _same_aim(theirs: RunHeader, ours: RunHeader) -> bool:
    """The number too: it is what their rows say that they changed in."""
    same_settings = theirs.settings == ours.settings and theirs.fingerprints == ours.fingerprints
    return same_settings and theirs.parent == ours.parent and theirs.number == ours.number
