"""After a publish: the sidecars that the shards of the new generation lack, built by several processes side by side.

In: an index. Out: its cache, complete, or a warning that says why it is not. A first run over a large
folder leaves many shards at once. One process builds the sidecars of 40,000 rows in a second, of which a fast card
embeds 1,500 to 3,000: one process alone would make the run up to a thirteenth longer.
Not here: what a sidecar holds, and building one (sidecars.py).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from embedcli.cores import usable_cores
from embedcli.errors import StorageError
from embedcli.index.generations import Index
from embedcli.index.shards import Shard
from embedcli.processes import die_with, ignore_stops, receive_message, send_message, spawn
from embedcli.search.sidecars import build, has_sidecar, store
from embedcli.vault.disk import Disk
from embedcli.vault.stubs import is_stub

ROWS_A_PROCESS = 20_000
"""What one process builds in the time that another needs to start."""
MOST_PROCESSES = 8
"""One takes some hundred MB."""


def complete(index: Index) -> None:
    """Build the sidecars that the shards of the current generation lack, while there is room for them on the disk.

    A run does this after its publish; whatever goes wrong is a warning, as the first search tries again. Shards whose
    content is not on this machine are left to the first search too.
    """
    generation = index.current()
    if generation is None:
        return
    here = [shard for shard in generation.shards.values() if not is_stub(shard.path)]
    lacking = [shard for shard in here if not has_sidecar(index, shard)]
    own, *others = _parts(lacking, _processes(lacking))
    with ExitStack() as at_the_end:
        helpers = []
        for part in others:
            with suppress(OSError):  # no process is to be had
                helpers.append(at_the_end.enter_context(_Helper(index.folder, part)))
        _build_all(index, own, with_text=not generation.settings.no_text)
        for helper in helpers:
            helper.wait()
    left = [shard for shard in lacking if not has_sidecar(index, shard)] if others else []
    _build_all(index, left, with_text=not generation.settings.no_text)  # what a helper could not do is told here


def _build_all(index: Index, shards: Sequence[Shard], *, with_text: bool) -> None:
    for shard in shards:
        try:
            arrays = build(shard, with_text=with_text, folder=index.folder)
            needed = sum(array.nbytes for array in arrays.values())
            if not index.disk.has_room(index.folder, needed):
                index.warn(f"the disk of `{index.folder}` is too full for the cache of searches")
                return
            store(index, shard, arrays)
        except StorageError as error:
            index.warn(f"the cache of searches is not complete: {error}")
            return


def _processes(lacking: Sequence[Shard]) -> int:
    rows = sum(shard.rows for shard in lacking)
    return max(1, min(MOST_PROCESSES, usable_cores(), len(lacking), rows // ROWS_A_PROCESS))


def _parts(shards: Sequence[Shard], count: int) -> list[list[Shard]]:
    """The shards dealt out so that all parts have about as many rows."""
    parts: list[list[Shard]] = [[] for _ in range(count)]
    for shard in sorted(shards, key=lambda shard: shard.rows, reverse=True):
        min(parts, key=lambda part: sum(other.rows for other in part)).append(shard)
    return parts


class _Helper:
    """A process that builds the sidecars of some shards; as a context it is gone at the end, whatever happens."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs, ExitStack() as where_none_starts:
            where_none_starts.callback(self._socket.close)
            self._process = spawn(
                __name__,
                "help_out",
                theirs,
                stdin=subprocess.DEVNULL,
                output=subprocess.DEVNULL,
                environment=os.environ,
            )
            where_none_starts.pop_all()
        order = {"index": os.fspath(folder), "shards": [shard.name for shard in shards]}
        with suppress(OSError):  # it died: its part is built by us in the end
            send_message(self._socket, json.dumps(order).encode())

    def __enter__(self) -> _Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def wait(self) -> None:
        self._process.wait()


def help_out(channel: int, parent_pid: int) -> None:
    """What a helper runs: whatever it cannot build is left to its parent, which says why."""
    ignore_stops()
    die_with(parent_pid)
    with socket.socket(fileno=channel) as ours:
        message = receive_message(ours)
    order = json.loads(message or b"{}")
    index = Index(Path(order["index"]), disk=Disk())
    generation = index.current()
    assert generation is not None
    shards = [generation.shards[name] for name in order["shards"]]
    _build_all(index, shards, with_text=not generation.settings.no_text)
