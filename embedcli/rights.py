"""What gives this user the right to a path that was refused.

In: a path that could not be read or written. Out: a hint with a command that works, and that takes nothing away from
whoever keeps the index: a run with `sudo` leaves files of root in it, and a colleague is no reason to change its owner.
Not here: the error itself (errors.py), the mode of a new index (config.py).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def rights_hint(path: Path) -> str:
    """What to type where the rights to `path` are lacking."""
    closed = _closed(path)
    whole = _whole(closed)
    owner, keeper, me = _owner(closed), _owner(whole), os.geteuid()
    if owner in (me, None):
        return f"give yourself the right to it: `chmod -R u+rwX {shlex.quote(str(closed))}`"
    if keeper == me:
        command = f"sudo chown -R {_name(me)} {shlex.quote(str(whole))}"
        return f"it belongs to `{_name(owner)}`; take the whole index back: `{command}`"
    return f"it belongs to `{_name(owner)}`: run this command as that user, or ask whoever that is for the right to it"


def _closed(path: Path) -> Path:
    """What refuses: the first folder on the way that may not be entered, else what lies there, else its folder."""
    for folder in reversed(path.parents):
        if not _may(folder, os.X_OK):
            return folder
    needed = os.R_OK | os.W_OK | (os.X_OK if os.path.isdir(path) else 0)
    return path if os.path.lexists(path) and not _may(path, needed) else path.parent


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _whole(path: Path) -> Path:
    """The index that the path lies in; the path itself where it lies in none."""
    inside = (part.parent for part in (path, *path.parents) if os.path.lexists(part.parent / "generations"))
    return next(inside, path)


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except OSError:
        return None


def _name(user: int) -> str:
    import pwd  # which Windows has not

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
