"""What is at a path: the same answers as Python's own where it can be told, an error where it cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcli.paths import exists, is_file, is_folder, is_link
from tests.unprivileged import as_nobody, give_to_nobody

ASK: dict[Callable[[Path], bool], Callable[[Path], bool]] = {
    exists: os.path.exists, is_file: os.path.isfile, is_folder: os.path.isdir, is_link: os.path.islink,
}  # fmt: skip


@pytest.mark.parametrize("ask", ASK, ids=lambda ask: ask.__name__)
def test_what_is_there_is_told_as_python_tells_it(tmp_path: Path, ask: Callable[[Path], bool]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for target in ("file", "folder", "nothing", "to-itself"):
        (tmp_path / f"to-{target}" if target != "to-itself" else tmp_path / target).symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    names = ["file", "folder", "nothing", "to-file", "to-folder", "to-nothing", "to-itself", "pipe", "file/below", "\0"]
    assert [ask(tmp_path / name) for name in names] == [ASK[ask](tmp_path / name) for name in names]


@pytest.mark.parametrize("ask", ASK, ids=lambda ask: ask.__name__)
def test_what_may_not_be_looked_at_is_not_said_to_be_gone(tmp_path: Path, ask: Callable[[Path], bool]) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/file").touch()
    (tmp_path / "closed").chmod(0)
    give_to_nobody(tmp_path)

    def look() -> None:
        with pytest.raises(PermissionError):
            ask(tmp_path / "closed/file")

    try:
        as_nobody(tmp_path, look)
    finally:
        (tmp_path / "closed").chmod(0o700)
