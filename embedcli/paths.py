"""What stands at a path, with an error where that cannot be told.

In: a path. Out: whether a file, a folder, a link or anything at all is there, and what a folder holds. `Path.glob`
finds nothing in a folder that may not be looked into, and from Python 3.14 on the methods of `Path` of these names say
False, as if nothing were there: what is not seen would be taken for what is gone.
Not here: the trees of sources, whose problems are counted and not raised (sources/walk.py).
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether anything is there; a link counts as what it leads to. Raises OSError."""
    return _mode(path, os.stat) is not None


def is_file(path: Path) -> bool:
    """Whether a regular file is there, or a link to one. Raises OSError."""
    mode = _mode(path, os.stat)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Whether a folder is there, or a link to one. Raises OSError."""
    mode = _mode(path, os.stat)
    return mode is not None and stat.S_ISDIR(mode)


def is_link(path: Path) -> bool:
    """Whether a symbolic link is there, wherever it leads. Raises OSError."""
    mode = _mode(path, os.lstat)
    return mode is not None and stat.S_ISLNK(mode)


def matching(folder: Path, pattern: str) -> list[Path]:
    """The paths below a folder whose names match a pattern, which may have several parts (`*/part-*.parquet`), in
    order; none below what is no folder. Raises OSError."""
    name, _, rest = pattern.partition("/")
    found = [folder / entry for entry in sorted(_entries(folder)) if fnmatch.fnmatchcase(entry, name)]
    return [below for path in found for below in matching(path, rest)] if rest else found


def everything_below(folder: Path) -> Iterator[Path]:
    """The files and folders below a folder, at any depth; nothing below what is no folder. Raises OSError."""
    for entry in _entries(folder):
        yield folder / entry
        if not is_link(folder / entry):
            yield from everything_below(folder / entry)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _mode(path: Path, stat_of: Callable[[Path], os.stat_result]) -> int | None:
    """None where nothing is there: also below a file, and at the end of links that lead in a circle."""
    try:
        return stat_of(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    except ValueError:  # a path with a zero byte: no file system has such a name
        return None
