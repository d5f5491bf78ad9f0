"""What is typed where this user lacks the right to a part of an index gives it, and nobody loses theirs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcli.errors import StorageError
from tests.carried_out.table import carries_out
from tests.published import filled
from tests.unprivileged import NOBODY, as_nobody, give_to_nobody
from tests.workshop import Workshop, words

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="two users are needed")


def refused(shop: Workshop, told: Path) -> Callable[[], None]:
    """A run that lacks a right; what it says is written to a file."""

    def run() -> None:
        with pytest.raises(StorageError, match="Permission denied") as caught:
            shop.ingest()
        told.write_text(caught.value.hint)

    return run


def goes_on(shop: Workshop) -> Callable[[], None]:
    def run() -> None:
        assert shop.ingest().exit_code == 0

    return run


def command_of(hint: str) -> str:
    return hint.split("`")[-2]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """A file for what a process of another user was told."""
    file = tmp_path / "told"
    file.touch()
    file.chmod(0o666)
    return file


@carries_out("give yourself the right to it: `chmod -R u+rwX /folder`")
@pytest.mark.parametrize("closed", ["generations/000001/vectors", "changes", "keys", "lock"])
def test_a_part_of_an_index_that_its_owner_closed_is_opened_again(shop: Workshop, told: Path, closed: str) -> None:
    filled(shop)
    shop.write("new.txt", words(20, 70))
    give_to_nobody(shop.docs.parent)
    (shop.index / closed).chmod(0)
    as_nobody(shop.docs.parent, refused(shop, told))
    as_nobody(shop.docs.parent, lambda: subprocess.run(command_of(told.read_text()), shell=True, check=True) and None)
    as_nobody(shop.docs.parent, goes_on(shop))


@NEEDS_ROOT
@carries_out("it belongs to `root`; take the whole index back: `sudo chown -R you /folder`")
def test_an_index_in_which_a_run_with_sudo_has_left_files_goes_on(
    shop: Workshop, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shop)
    give_to_nobody(shop.docs.parent)
    shop.write("new.txt", words(20, 70))
    shop.ingest()  # root's: this user's own run could not go on, and not even look for what to say
    shop.write("newer.txt", words(20, 71))
    as_nobody(shop.docs.parent, refused(shop, told))
    hint = told.read_text()
    assert "belongs to `root`" in hint
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "bin/sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    subprocess.run(command_of(hint), shell=True, check=True)
    assert {path.lstat().st_uid for path in shop.index.rglob("*")} == {NOBODY}
    as_nobody(shop.docs.parent, goes_on(shop))


@NEEDS_ROOT
@carries_out("it belongs to `root`: run this command as that user, or ask whoever that is for the right to it")
def test_whoever_is_not_the_keeper_of_an_index_is_not_told_to_take_it(shop: Workshop, told: Path) -> None:
    """The keeper's own nights would fail then."""
    filled(shop)
    shop.write("new.txt", words(20, 70))
    for path in (shop.index, shop.index / "generations", *shop.index.glob("generations/*")):
        path.chmod(0o755)
    as_nobody(shop.docs.parent, refused(shop, told))
    hint = told.read_text()
    assert hint.startswith("it belongs to `root`: run this command as that user") and "chown" not in hint
    assert shop.ingest().exit_code == 0
