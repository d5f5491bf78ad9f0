"""What is at a path: the same answers as Python's own where it can be told, an error where it cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcli.paths import everything_below, exists, is_file, is_folder, is_link, matching
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


FOUND: dict[str, Callable[[Path], list[Path]]] = {
    "*": lambda folder: matching(folder, "*"),
    "[0-9]*": lambda folder: matching(folder, "[0-9]*"),
    "*/part-*.parquet": lambda folder: matching(folder, "*/part-*.parquet"),
    "[0-9]*/*/part-?.parquet": lambda folder: matching(folder, "[0-9]*/*/part-?.parquet"),
    "**/*": lambda folder: list(everything_below(folder)),
}


@pytest.mark.parametrize("pattern", FOUND)
def test_what_a_folder_holds_is_told_as_python_tells_it(tmp_path: Path, pattern: str) -> None:
    for name in ("1/vectors/part-a.parquet", "2/part-b.parquet", "2/.part-c.parquet", ".tmp/part-d.parquet", "x", "3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "1/to-itself").symlink_to(tmp_path, target_is_directory=True)
    assert sorted(FOUND[pattern](tmp_path)) == sorted(tmp_path.glob(pattern))
    assert FOUND[pattern](tmp_path / "x") == FOUND[pattern](tmp_path / "nothing") == []


@pytest.mark.parametrize("pattern", FOUND)
def test_a_folder_that_may_not_be_listed_is_not_said_to_be_empty(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "index"
    (folder / "1/closed").mkdir(parents=True)
    closed = [folder, folder / "1", folder / "1/closed"][pattern.count("/")]
    give_to_nobody(tmp_path)
    closed.chmod(0o300)

    def look() -> None:
        with pytest.raises(PermissionError):
            FOUND[pattern](folder)

    try:
        as_nobody(tmp_path, look)
    finally:
        closed.chmod(0o700)
