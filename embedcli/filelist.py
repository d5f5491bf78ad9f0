"""A list of files (`--files-from`), as long as it may be: it takes the memory of its own bytes.

In: a file or stdin with a name a line, or names that end in NUL. Out: absolute paths, in the order of the list.
Not here: which root each belongs to (sources/lists.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from embedcli.errors import InputError
from embedcli.standard_input import readable_stdin
from embedcli.urls import SCHEMES

_BUCKETS = tuple(scheme.encode() for scheme in SCHEMES)


@dataclass(frozen=True)
class FileList:
    """The bytes of a list; `folder` is where its relative names begin."""

    data: bytes
    separator: bytes
    folder: str

    def __iter__(self) -> Iterator[str]:
        start = 0
        while start < len(self.data):
            end = self.data.find(self.separator, start)
            end = len(self.data) if end < 0 else end
            name = self.data[start:end]
            if self.separator == b"\n":
                name = name.removesuffix(b"\r")
            if name.startswith(_BUCKETS):
                raise InputError(
                    f"the list names `{name.decode(errors='replace')}`, and lists are of files on this machine",
                    "name its folder as a SOURCE, with `--include` for what you want of it",
                )
            if name:
                yield os.path.normpath(os.path.join(self.folder, os.fsdecode(name)))
            start = end + 1


def read_list(name: str, *, nul: bool) -> FileList:
    """The list in a file, or with `-` on stdin. Raises InputError (exit 15)."""
    try:
        if name == "-":
            data = readable_stdin().read()
        else:
            with open(name, "rb") as file:
                data = file.read()
    except OSError as error:
        raise InputError(
            f"the list `{name}` cannot be read: {error.strerror}",
            "check its path; `--files-from -` reads the list on stdin",
        ) from error
    if b"\0" in data and not nul:
        raise InputError(f"the names in the list `{name}` end in NUL", "add `-0`, as for `find -print0`")
    return FileList(data, b"\0" if nul else b"\n", os.getcwd())
