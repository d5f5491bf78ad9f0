"""Tests run as root too, who may read everything: a way to be somebody who may not; and what only root can do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

NOBODY = 65534


def skip_unless_it_mounts() -> None:
    """Skip the test where this user may not mount a disk that nobody else sees."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")


def give_to_nobody(*folders: Path) -> None:
    """Let the user of `as_nobody` own these folders and what is in them, where we are root."""
    for folder in folders if os.geteuid() == 0 else ():
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def as_nobody(folder: Path, action: Callable[[], None]) -> None:
    """Run as a user whom permissions bind, in a process of its own where we are root."""
    if os.geteuid() != 0:
        return action()
    for parent in [folder, *folder.parents]:
        if not os.stat(parent).st_mode & 0o005:
            os.chmod(parent, 0o755)
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            raise
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
