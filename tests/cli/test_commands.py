"""The commands are listed without being loaded, and the list says of each what the command itself says."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from embedcli.cli.app import app
from embedcli.cli.commands import LISTED, Commands
from tests.help_texts import WITH_A_TEXT, text_of

COMMAND_FILES = {f"embedcli.cli.{file}" for file, _ in LISTED.values()} - {"embedcli.cli.app"}


def test_the_list_says_of_each_command_what_its_own_help_says() -> None:
    commands = Commands(prepare=lambda command: None)
    assert {name: command.get_short_help_str(1000) for name, command in commands.items()} == {
        name: line for name, (_, line) in LISTED.items()
    }


def test_help_lists_every_command_as_a_group_of_loaded_commands_would() -> None:
    loaded = typer.Typer(rich_markup_mode=None)
    for name, command in Commands(prepare=lambda command: None).items():
        loaded.command(name)(command.callback.__wrapped__)
    listed, expected = (CliRunner().invoke(one, ["--help"]).stdout.partition("Commands:")[2] for one in (app, loaded))
    assert listed == expected != ""


def test_a_start_loads_the_files_of_no_other_command() -> None:
    code = "import sys, embedcli.cli.main as program\ntry: program.main()\nexcept SystemExit: print(*sys.modules)"
    for arguments, files in ((["--help"], set()), (["status", "--help"], {"embedcli.cli.status"})):
        ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert "Usage: " in ran.stdout
        assert COMMAND_FILES & set(ran.stdout.splitlines()[-1].split()) == files


@pytest.mark.parametrize("name", LISTED)
def test_a_help_fits_into_80_columns_and_ends_with_its_text(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    if name in WITH_A_TEXT:
        assert shown.endswith(f"\n\n{text_of(name)}")


def test_every_text_of_help_is_that_of_a_command() -> None:
    assert set(WITH_A_TEXT) <= set(LISTED)
