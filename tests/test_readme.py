"""The README does what it says: its session on the samples, its snippet, its tables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from embedcli import errors
from embedcli.cli.app import app

HERE = Path(__file__).resolve().parent.parent
README = (HERE / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def masked(text: str) -> list[str]:
    """Lines without what differs from machine to machine: rates, seconds, the folder, on a slow one the progress;
    `...` stands for any end."""
    text = re.sub(r"[\d,]+ tokens/s, [^\n]+ s$", "RATE", text, flags=re.MULTILINE)
    text = re.sub(r"^\w[^\n]*: [\d,]+/[\d,]+ documents[^\n]*\n", "", text, flags=re.MULTILINE)
    return [re.sub(r"(; largest: .*?kB, .*?kB, ).*", r"\1...", line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with the samples, and `embedcli` on the PATH."""
    folder = tmp_path_factory.mktemp("you")
    shutil.copytree(HERE / "samples", folder / "samples")
    commands = folder / ".bin"
    commands.mkdir()
    (commands / "embedcli").write_text(f'#!/bin/sh\nexec {sys.executable} -m embedcli "$@"\n')
    (commands / "embedcli").chmod(0o755)
    return folder


def test_the_session_prints_what_the_readme_shows(place: Path) -> None:
    (session,) = blocks("console")
    environment = {**os.environ, "PATH": f"{place / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        ran = subprocess.run(
            command, shell=True, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert masked(ran.stdout.replace(str(place), "/home/you")) == masked(expected), command


def test_the_index_is_queried_from_its_manifest_alone(place: Path) -> None:
    """After the session: the README's own lines find the manual."""
    (snippet,) = blocks("python")
    ran = subprocess.run([sys.executable, "-c", snippet], cwd=place, capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == 3 and "manual.md Lumen Hub LH-2: product manual" in lines[0]
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.4


def test_every_command_stands_in_the_readme() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        assert f"`embedcli {name}" in README, name
        assert command.help, name


def test_every_exit_code_stands_in_the_readme() -> None:
    table = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE) for code in row.split(", ")}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EmbedcliError)
    ]
    codes = {kind.exit_code for kind in kinds if isinstance(kind.exit_code, int)}
    assert codes | {0, 3, 130, 143} <= table
