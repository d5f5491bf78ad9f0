"""Which object of a vault a file of the index becomes.

In: a path of the mirror. Out: its key, or None for a file that only this machine needs.
Invariant: no key is used twice for two contents, but for those that are swapped: shards have names of their own, and
what has none gets a nonce.
Not here: storing it (mirror.py).
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

SEEN = "state/seen.parquet"
_SHARD = re.compile(r"part-[0-9a-f]+\.parquet")
_KEYS = re.compile(r"part-[0-9a-f]+\.npy")


class Keys:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nonces: dict[int, str] = {}

    def parts(self, path: Path) -> tuple[str, ...]:
        """The path below the mirror; empty for any other path."""
        return path.relative_to(self._folder).parts if path.is_relative_to(self._folder) else ()

    def of(self, path: Path) -> str | None:
        match self.parts(path):
            case ("staging" | "generations" | "keys", *_, name) if _SHARD.fullmatch(name) or _KEYS.fullmatch(name):
                return f"{'vectors' if _SHARD.fullmatch(name) else 'keys'}/{name}"
            case ("staging", *room, name) if room and name != "reserve":
                return f"staging/{'/'.join(room)}/{name}"
            case ("generations", building, name) if building.endswith(".tmp"):
                return f"{self.folder_of(int(building.split('.')[0]))}/{name}"
            case ("changes", name) if ".when-" in name:
                return f"changes/{name.split('.')[0]}-{secrets.token_hex(8)}.parquet"
            case ("state", "damaged", name):
                return f"state/damaged/{name}"
            case ("state", "seen.parquet"):
                return SEEN
        return None

    def folder_of(self, number: int) -> str:
        """Where the files of a generation go that is being built."""
        return f"generations/{number:06d}-{self._nonces.setdefault(number, secrets.token_hex(8))}"

    def forget(self, number: int) -> None:
        """Begin elsewhere when that generation is built again."""
        self._nonces.pop(number, None)


def journal_key(room: str, sequence: int) -> str:
    """The object of one checkpoint, in the folder of a run or of a writer: there is no append in a vault."""
    return f"staging/{room}/journal/{sequence:06d}.jsonl"


def run_key(at_ns: int) -> str:
    """The object of one line of the history of runs."""
    return f"state/runs/{at_ns:020d}-{secrets.token_hex(4)}.json"
