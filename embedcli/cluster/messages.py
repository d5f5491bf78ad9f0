"""What the coordinator of a run and a worker say to each other: sources one way, outcomes back; never a text or vector.

In: the records below. Out: bytes, and the records again. A worker has four methods: `open` (a Job -> Facts), `offer` (a
Slice), `collect` (-> Collected, after a few seconds at most: that is the heartbeat too) and `stop`.
Not here: how the bytes travel (transport.py), what a Job is made of (job.py).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from embedcli.errors import EmbedcliError
from embedcli.reading.process import WorkFailed

if TYPE_CHECKING:
    from embedcli.columns import Floats
    from embedcli.index.outcomes import Stored
    from embedcli.index.shards import Shard
    from embedcli.records import SourceKey
    from embedcli.run.looking.gone import Moved
    from embedcli.run.tally import Tally
    from embedcli.run.tasks import Task


@dataclass(frozen=True)
class Facts:
    """What a worker says of itself once its engine is ready. `writer`: the folder in which it writes, by its name below
    that of the run; `probe`: the vectors of the probe set."""

    writer: str
    device: str
    precisions: tuple[str, ...]
    niceness: int
    probe: Floats


@dataclass(frozen=True)
class Slice:
    """Some sources to read, embed and store, in walk order.

    `number`: of the generation in work; `moved`: which of the sources are known under another name; `lend`: folders of
    writers that are lost or have left, by their names below `staging/`, which may have vectors of these sources.
    """

    id: int
    number: int
    tasks: tuple[Task, ...]
    moved: dict[SourceKey, Moved]
    lend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What became of a slice: what is `stored` of its sources and of the documents inside them; their `shards` lie in
    the folder of the writer, durably, by the path that it has on its machine. A worker that stops answers for the
    sources that are whole."""

    slice_id: int
    stored: Stored
    shards: tuple[Shard, ...]
    tally: Tally
    gone: frozenset[SourceKey]
    cleared: frozenset[SourceKey]


@dataclass(frozen=True)
class Collected:
    """What a worker has to say since it was asked last. `tokens`: embedded so far; `ended`: nothing more will come."""

    answers: tuple[Answer, ...] = ()
    tokens: int = 0
    lines: tuple[str, ...] = field(default=())
    ended: bool = False


Owner = TypeVar("Owner")


def owner_of(key: SourceKey, owners: Mapping[SourceKey, Owner]) -> Owner | None:
    """What belongs to a source, for the source or a document inside it, whose path goes on with a `#`."""
    root, path = key
    while (owner := owners.get((root, path))) is None and "#" in path:
        path = path.rpartition("#")[0]
    return owner


def pack(message: object) -> bytes:
    return pickle.dumps(message, protocol=5)


def unpack(data: bytes) -> Any:
    return pickle.loads(data)


def pack_error(error: EmbedcliError | str) -> bytes:
    """The reply of a worker that cannot go on: an error for the user, or the traceback of a bug."""
    return pack(("error", error))


def pack_reply(value: object) -> bytes:
    return pack(("reply", value))


def unpack_reply(data: bytes) -> Any:
    """The value of a reply. Raises the EmbedcliError that the worker met, or WorkFailed for a bug."""
    kind, value = unpack(data)
    if kind == "reply":
        return value
    raise value if isinstance(value, EmbedcliError) else WorkFailed(value)
