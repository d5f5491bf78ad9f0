"""An index by its place: a folder, or the mirror of a vault.

In: what `--index` says, as config.py turns it into a folder. Out: the Index, up to date for a reader.
Not here: what a mirror does (mirror.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from embedcli.config import mirrored_url
from embedcli.index.generations import Index
from embedcli.paths import matching
from embedcli.vault.disk import Disk

FIRST_HAND = ".verify-"
LEFT_S = 86400.0
"""A folder of this age was left by a process that was killed."""


def open_index(folder: Path, *, disk: Disk | None = None, warn: Callable[[str], None] = lambda text: None) -> Index:
    """Raises StorageError where it lies in a vault that cannot be reached, NoIndex where something else lies there."""
    index = Index(folder, disk=disk or disk_of(folder), warn=warn)
    index.disk.refresh()
    return index


@contextmanager
def first_hand(index: Index) -> Iterator[Index]:
    """The index as it lies in its vault, without anything that this machine has fetched or made."""
    if mirrored_url(index.folder) is None:
        yield index
        return
    for left in matching(index.folder.parent, f"{FIRST_HAND}*"):
        if time.time() - left.stat().st_mtime > LEFT_S:
            index.disk.remove(left)
    with TemporaryDirectory(prefix=FIRST_HAND, dir=index.folder.parent) as folder:
        from embedcli.index.mirror.mirror import Mirror

        assert isinstance(index.disk, Mirror)
        yield open_index(Path(folder), disk=Mirror(Path(folder), index.disk.vault), warn=index.warn)


def disk_of(folder: Path) -> Disk:
    """The disk on which an index in that folder is worked on."""
    url = mirrored_url(folder)
    if url is None:
        return Disk()
    from embedcli.index.mirror.mirror import Mirror
    from embedcli.vault.opened import open_vault

    return Mirror(folder, open_vault(url))
