"""What stands at a path, with an error where that cannot be told.

In: a path. Out: whether a file, a folder, a link or anything at all is there. From Python 3.14 on the methods of `Path`
of these names say False for a folder that may not be looked into, as if nothing were there: what is not seen would be
taken for what is gone.
Not here: the trees of sources, whose problems are counted and not raised (sources/walk.py).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
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
