"""Who may read the index, compared with who may read its sources: what `verify` and `doctor` say of it.

In: an index and its current generation. Out: the sources that other users cannot read although they can read the
index, which holds the text. Only the bits of modes are compared, on the whole way from `/`.
Not here: the mode of a new index (run/begin.py).
"""

from __future__ import annotations

import os

from embedcli.errors import StorageError, quoted
from embedcli.index.generations import Index
from embedcli.index.manifest import Generation
from embedcli.records import from_printable
from embedcli.report import many

GROUP, OTHERS = 0o040, 0o004


def openness(index: Index, current: Generation) -> tuple[str, str]:
    """A sentence for an index that is more open than sources in it, and the command that closes it; empty where it
    is not, or where documents.parquet is damaged."""
    readers = _Readers()
    try:
        bits, group = readers.of(str(index.path(current.number) / "documents.parquet"))
        uris = index.documents(current.number, ["uri"]).column("uri").to_pylist() if bits else []
    except (OSError, StorageError):
        return "", ""
    closed = [uri for uri in uris if _is_more_open(bits, group, readers, os.fsdecode(from_printable(uri)))]
    if not closed:
        return "", ""
    others = "everyone" if bits & OTHERS else "its group"
    told = f"{others} may read `{index.folder}`, but not {many(len(closed), 'source')} in it, `{closed[0]}` the first"
    return told, f"`chmod -R go-rwx {quoted(index.folder)}`"


def _is_more_open(bits: int, group: int, readers: _Readers, file: str) -> bool:
    try:
        own_bits, own_group = readers.of(file)
    except OSError:  # gone, or on a share that is not mounted: nothing is known of it
        return False
    if own_bits & OTHERS:
        return False
    to_group = own_bits & GROUP and own_group == group
    return bool(bits & OTHERS or (bits & GROUP and not to_group))


class _Readers:
    """The bits GROUP and OTHERS of files, as far as the folders on the way let them through; remembers the folders."""

    def __init__(self) -> None:
        self._through: dict[str, int] = {}

    def of(self, file: str) -> tuple[int, int]:
        """The bits and the group of a file. Raises OSError, of what lies in a bucket too: it has no such bits."""
        found = os.stat(file)
        return found.st_mode & self._folder(os.path.dirname(os.path.realpath(file))), found.st_gid

    def _folder(self, path: str) -> int:
        if path not in self._through:
            above = GROUP | OTHERS if path == os.path.dirname(path) else self._folder(os.path.dirname(path))
            self._through[path] = (os.stat(path).st_mode & 0o011) << 2 & above
        return self._through[path]
