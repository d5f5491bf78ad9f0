"""`current.json`, the object of an index in a vault that its readers begin with: what is published, and where it lies.

In: its JSON, or a change of it. Out: a Pointer. Shards and keys are named by the manifests; the pointer names these.
Not here: reading and swapping it (mirror.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

KEY = "current.json"
FORMAT = 1


@dataclass(frozen=True)
class Place:
    """Where the files of a generation lie. `retired_at`: when it stopped being current, by the clock of the vault."""

    folder: str
    manifest_sha256: str
    retired_at: float | None = None


@dataclass(frozen=True)
class Pointer:
    """`number`: the current generation, None before the first publish; `changes`: the keys of the change lists."""

    number: int | None = None
    fence: int = 0
    generations: Mapping[int, Place] = field(default_factory=dict)
    changes: Mapping[int, str] = field(default_factory=dict)

    def at(self, number: int, place: Place, changes: Mapping[int, str], *, now: float, fence: int) -> Pointer:
        """The same index with generation `number` current."""
        places = dict(self.generations)
        if self.number is not None and self.number != number:
            places[self.number] = replace(places[self.number], retired_at=now)
        places[number] = replace(place, retired_at=None)
        return Pointer(number, fence, places, {**self.changes, **changes})

    def without(self, *, generation: int | None = None, change: int | None = None) -> Pointer:
        places = {number: place for number, place in self.generations.items() if number != generation}
        lists = {number: key for number, key in self.changes.items() if number != change}
        return replace(self, generations=places, changes=lists)

    def dumps(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    @classmethod
    def loads(cls, data: bytes) -> Pointer:
        """Raises ValueError where it is none of a format that this version knows."""
        try:
            found: dict[str, Any] = json.loads(data)
            if found.pop("format") != FORMAT:
                raise ValueError("it was written by a newer version of embedcli")
            places = {int(number): Place(**place) for number, place in found.pop("generations").items()}
            changes = {int(number): str(key) for number, key in found.pop("changes").items()}
            return cls(generations=places, changes=changes, **found)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is not a pointer of an index") from error
