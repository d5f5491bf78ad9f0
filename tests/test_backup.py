"""A backup of an index, restored: the lines in the help of `verify`, and copies that followed links or know none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcli.verbs.damage_beside import LEADS_ELSEWHERE
from tests.help_texts import typed
from tests.published import damage, filled, index_of
from tests.workshop import Workshop, words

LINES = typed("verify")
PAIRS = dict(zip(LINES[::2], LINES[1::2], strict=True))
"""Each line that saves, and the one that restores."""

Command = Callable[..., Any]


def two_generations(shop: Workshop) -> Workshop:
    filled(shop)
    shop.write("new.txt", words(60, 77))
    shop.ingest()
    return shop


def run(line: str, shop: Workshop) -> None:
    environment = {**os.environ, "RESTIC_PASSWORD": "for a test", "RESTIC_CACHE_DIR": str(shop.index.parent / "cache")}
    subprocess.run(line, shell=True, check=True, cwd=shop.index.parent, env=environment, capture_output=True)


def is_whole(shop: Workshop, content: list[Any], command: Command) -> None:
    """The next run finds everything as it was, embeds nothing, and the one after it can publish."""
    had = shop.embedded
    summary = shop.ingest()
    assert (summary.generation, summary.sources["unchanged"], shop.embedded) == (2, 7, had)
    assert shop.content() == content and damage(shop) == []
    assert os.readlink(shop.index / "current") == "generations/000002"
    shop.write("later.txt", words(20, 5))
    assert shop.ingest().generation == 3
    assert command("rollback", shop.index).exit_code == 0
    assert shop.content() == content


@pytest.mark.parametrize("line", PAIRS)
def test_the_lines_of_the_help_save_and_restore_an_index(tmp_path: Path, command: Command, line: str) -> None:
    if shutil.which(line.split()[0]) is None:
        pytest.skip(f"{line.split()[0]} is not installed")
    shop = two_generations(Workshop(tmp_path, index="idx"))
    content = shop.content()
    if line.startswith("restic"):
        run(" ".join([*line.split()[:3], "init"]), shop)
    run(line, shop)
    shutil.rmtree(shop.index)
    run(PAIRS[line], shop)
    assert command("verify", shop.index).exit_code == 0
    is_whole(shop, content, command)


FOLLOWED = {
    "cp -rL": "cp -rL idx copy && rm -r idx && mv copy idx",
    "zip": "zip -qr copy.zip idx && rm -r idx && unzip -q copy.zip",
    "no links": "rm idx/current && printf generations/000002 > idx/current",
}


@pytest.mark.parametrize("how", FOLLOWED)
def test_a_copy_that_followed_links_is_recognised_and_the_next_run_mends_it(
    tmp_path: Path, command: Command, how: str
) -> None:
    if shutil.which(how.split()[0]) is None and how == "zip":
        pytest.skip("zip is not installed")
    shop = two_generations(Workshop(tmp_path, index="idx"))
    content = shop.content()
    run(FOLLOWED[how], shop)
    assert not (shop.index / "current").is_symlink()
    for verb in ("status", "verify"):
        shown = command(verb, shop.index)
        assert shown.exit_code == 0 and "generation 2" in shown.stdout
        assert f"`embedcli ingest --index {shop.index}` mends it" in shown.stderr
    assert not (shop.index / "current").is_symlink(), "what only reads changes nothing"
    is_whole(shop, content, command)
    assert not list(shop.index.glob(".trash*"))


def test_after_a_backup_was_copied_over_an_index_verify_names_the_list_that_leads_elsewhere(
    tmp_path: Path, command: Command
) -> None:
    shop = two_generations(Workshop(tmp_path, index="idx"))
    run("tar -czf backup.tar.gz idx", shop)
    shop.write("later.txt", words(20, 5))
    shop.ingest()
    run("tar -xzf backup.tar.gz", shop)
    assert [(item.file, item.problem) for item in damage(shop)] == [("changes/000003.parquet", LEADS_ELSEWHERE)]
    told = command("verify", shop.index).stderr
    assert "--since 0` gives loaders everything" in told and "mv " not in told
    assert shop.ingest().sources["new"] == 1 and damage(shop) == []


@pytest.mark.parametrize("verb", ["rollback", "forget"])
def test_a_verb_that_changes_the_index_mends_it_too(shop: Workshop, command: Command, verb: str) -> None:
    two_generations(shop)
    run(f"cp -rL {shop.index.name} copy && rm -r {shop.index.name} && mv copy {shop.index.name}", shop)
    arguments = (shop.index,) if verb == "rollback" else (shop.docs, "--index", shop.index)
    assert command(verb, *arguments).exit_code == 0
    assert (shop.index / "current").is_symlink() and damage(shop) == []


def test_a_folder_in_place_of_the_link_that_is_no_copy_is_refused_with_the_command_that_helps(
    shop: Workshop, command: Command
) -> None:
    two_generations(shop)
    (shop.index / "current").unlink()
    shutil.copytree(shop.index / "generations/000002", shop.index / "current")
    (shop.index / "current/manifest.json").write_text("{}")
    error = command("verify", shop.index).exception
    assert "is not a link to a generation" in str(error)
    words_of_hint = error.hint.split("`")[1].split()
    assert command(*words_of_hint[1:]).exit_code == 0
    assert index_of(shop).current_number() == 2 and (shop.index / "current").is_symlink()
    assert damage(shop) == []


def test_a_kill_while_the_copy_is_replaced_leaves_an_index_that_a_command_mends(
    shop: Workshop, command: Command
) -> None:
    two_generations(shop)
    os.rename(shop.index / "current", shop.index / ".trash-current")
    error = command("ingest", "--index", shop.index).exception
    assert command(*error.hint.split("`")[1].split()[1:]).exit_code == 0
    assert shop.ingest().sources["unchanged"] == 7 and damage(shop) == []
