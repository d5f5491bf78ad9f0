"""Tests run as root too, who may read everything: a way to be somebody who may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def as_nobody(folder: Path, action: Callable[[], None]) -> None:
    """Run as a user whom permissions bind, in a process of its own where we are root."""
    if os.geteuid() != 0:
        return action()
    for parent in [folder, *folder.parents]:
        if not os.stat(parent).st_mode & 0o005:
            os.chmod(parent, 0o755)
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
