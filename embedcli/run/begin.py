"""TODO run.begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from embedcli.errors import EmbedcliError
from embedcli.index import lock
from embedcli.index.generations import Index
from embedcli.report import Report


@contextmanager
def opened(index: Index, report: Report) -> Iterator[lock.Lock]:
    """The index's folder, made where it is new, and its lock. A new index in which nothing came to be goes again."""
    made_folder = not index.folder.exists()
    index.disk.make_folder(index.folder)
    with lock.Lock(index.folder, network=lock.on_network(index.folder), warn=report.warn) as held:
        new = not index.generations.exists()
        try:
            index.create()
            yield held
        except EmbedcliError:
            if new:
                _remove_if_empty(index, folder_too=made_folder)
            raise


def _remove_if_empty(index: Index, *, folder_too: bool) -> None:
    """`generations` goes last: as long as it is there, the folder is known for an index."""
    kept = (index.staging, index.keys, index.changes, index.generations)
    if index.current_number() is not None or any(any(folder.iterdir()) for folder in kept if folder.exists()):
        return
    index.disk.remove(index.state)
    with suppress(OSError):
        (index.folder / "lock").unlink()
        for folder in (*kept, index.folder) if folder_too else kept:
            folder.rmdir()
