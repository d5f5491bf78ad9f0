"""Who may read an index: it holds the text of its sources, so it is closed unless somebody opens it."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import Mismatch, UsageError
from tests.published import filled
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, words

Command = Callable[..., Any]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> tuple[set[int], set[int]]:
    """Those of all folders and of all files of an index."""
    found = [path for path in [folder, *folder.rglob("*")] if not path.is_symlink()]
    bits = {
        kind: {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir() is kind} for kind in (True, False)
    }
    return bits[True], bits[False]


def opened_up(path: Path) -> None:
    """Let everyone pass to what lies in a folder of this test: the folder of all tests is closed."""
    for folder in (path, *path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_new_index_is_open_to_its_owner_alone_whatever_the_umask(shop: Workshop, mask: int) -> None:
    with umask(mask):
        shop.write("slow.txt", UNFINISHED)
        shop.write("a.txt", words(30))
        stopped_half_way(shop)
        assert modes(shop.index) == ({0o700}, {0o600}), "the files of a run in progress too"
        filled(shop)
        shop.write("b.txt", words(30, 5))
        shop.ingest()
    assert modes(shop.index) == ({0o700}, {0o600})


def test_an_empty_folder_that_becomes_an_index_is_closed(shop: Workshop) -> None:
    shop.index.mkdir(mode=0o755)
    filled(shop)
    assert modes(shop.index) == ({0o700}, {0o600})


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_an_existing_index_stays_as_open_as_it_is(shop: Workshop, mask: int) -> None:
    filled(shop)
    subprocess.run(["chmod", "-R", "u=rwX,g=rX,o=", shop.index], check=True)
    with umask(mask):
        shop.write("b.txt", words(30, 5))
        shop.ingest()
        shop.ingest(rebuild=True, dim=8)
    assert modes(shop.index) == ({0o750}, {0o640})


def test_mode_opens_a_new_index_and_is_refused_for_one_that_has_another(shop: Workshop, command: Command) -> None:
    shop.write("a.txt", words(30))
    assert command("ingest", shop.docs, "--index", shop.index, "--mode", "750").exit_code == 0
    assert modes(shop.index) == ({0o750}, {0o640})
    assert command("ingest", "--index", shop.index, "--mode", "750").exit_code == 0
    error = command("ingest", "--index", shop.index, "--mode", "755").exception
    assert isinstance(error, Mismatch) and "has the mode 750, this run asks for 755" in str(error)
    subprocess.run(error.hint.split("`")[3], shell=True, check=True)
    assert modes(shop.index) == ({0o755}, {0o644})
    assert command("ingest", "--index", shop.index, "--mode", "755").exit_code == 0


@pytest.mark.parametrize("mode", ["99", "rwx", "600", "1700", "-1"])
def test_a_mode_that_would_shut_the_owner_out_or_is_none_is_exit_2(shop: Workshop, command: Command, mode: str) -> None:
    shop.write("a.txt", words(30))
    ran = command("ingest", shop.docs, "--index", shop.index, f"--mode={mode}")
    assert isinstance(ran.exception, UsageError) and not shop.index.exists()


def test_doctor_and_verify_tell_when_an_index_is_more_open_than_a_source_and_the_command_closes_it(
    shop: Workshop, command: Command
) -> None:
    filled(shop)
    opened_up(shop.index.parent)
    secret = shop.docs / "part-0/file-0.txt"
    secret.chmod(0o600)
    assert command("verify", shop.index).stderr == ""
    subprocess.run(["chmod", "-R", "go+rX", shop.index], check=True)
    told = f"warning: everyone may read `{shop.index}`, but not 1 source in it, `{secret}` the first"
    verified = command("verify", shop.index)
    assert (verified.exit_code, verified.stderr) == (0, f"{told}: `chmod -R go-rwx {shop.index}`\n")
    examined = command("doctor", shop.index, "--model", "minilm")
    assert examined.exit_code == 0 and "FAIL  rights" in examined.stdout and "but not 1 source" in examined.stdout
    subprocess.run(verified.stderr.split("`")[-2], shell=True, check=True)
    assert command("verify", shop.index).stderr == ""
    assert "ok    rights" in command("doctor", shop.index, "--model", "minilm").stdout
    assert shop.ingest().exit_code == 0


def test_a_closed_folder_above_a_source_or_the_index_counts_too(shop: Workshop, command: Command) -> None:
    filled(shop)
    opened_up(shop.index.parent)
    subprocess.run(["chmod", "-R", "go+rX", shop.index], check=True)
    assert command("verify", shop.index).stderr == ""
    (shop.docs / "part-1").chmod(0o700)
    assert "but not 3 sources in it" in command("verify", shop.index).stderr
    shop.index.chmod(0o700)
    assert command("verify", shop.index).stderr == ""


# ---- links that lead out of the roots


def test_links_to_files_outside_every_root_are_not_read_and_are_counted(shop: Workshop, command: Command) -> None:
    outside = shop.docs.parent / "secret.txt"
    outside.write_text(words(30, 7))
    shop.write("a.txt", words(30))
    shop.write("../more/b.txt", words(30, 3))
    (shop.docs / "into.txt").symlink_to("a.txt")
    (shop.docs / "across.txt").symlink_to("../more/b.txt")
    (shop.docs / "out.txt").symlink_to(outside)
    summary = shop.ingest(shop.docs, shop.docs.parent / "more")
    assert (summary.exit_code, summary.skipped) == (0, {"outside": {".txt": 1}})
    assert {row["path"] for row in shop.rows()} == {"a.txt", "b.txt", "into.txt", "across.txt"}
    assert (
        "1 linked from outside the roots (`--follow-links` reads them)"
        in command("ingest", "--index", shop.index).stderr
    )
    assert shop.ingest().sources["unchanged"] == 5


def test_follow_links_reads_them_and_is_remembered(shop: Workshop) -> None:
    outside = shop.docs.parent / "secret.txt"
    outside.write_text(words(30, 7))
    shop.write("a.txt", words(30))
    (shop.docs / "out.txt").symlink_to(outside)
    shop.ingest()
    assert shop.ingest(follow_links=True).exit_code == 0
    assert {row["path"] for row in shop.rows()} == {"a.txt", "out.txt"}
    shop.write("c.txt", words(30, 9))
    shop.ingest()
    assert {row["path"] for row in shop.rows()} == {"a.txt", "c.txt", "out.txt"}
    summary = shop.ingest(follow_links=False)
    assert (summary.exit_code, summary.skipped) == (0, {"outside": {".txt": 1}})
    assert {row["path"] for row in shop.rows()} == {"a.txt", "c.txt"}


def test_a_link_that_is_named_itself_is_followed(shop: Workshop) -> None:
    outside = shop.docs.parent / "far" / "secret.txt"
    outside.parent.mkdir()
    outside.write_text(words(30, 7))
    (shop.docs / "out.txt").symlink_to(outside)
    shop.ingest(shop.docs / "out.txt")
    assert {row["path"] for row in shop.rows()} == {"out.txt"}
    assert shop.ingest().sources["unchanged"] == 1


def test_an_index_of_an_earlier_version_goes_on_following_links(tmp_path: Path) -> None:
    from embedcli.fields import Fields
    from embedcli.records import Root

    stored = Fields({"id": "0" * 32, "path": "/docs", "include": [], "exclude": [], "gitignore": False})
    assert Root.of(stored).follow_links and not Root("0", "/docs").follow_links
