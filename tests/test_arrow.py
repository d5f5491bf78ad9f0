"""No process of a command imports pandas, as pyarrow would at the first list it is given; `to_pandas` still works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="pandas is not installed")

HERE = Path(__file__).parent
NOTES = """
import os, sys
class Notes:
    def find_spec(self, name, *_):
        if name == "pandas":
            with open(os.environ["NOTES"], "a") as file:
                file.write(" ".join(sys.orig_argv)[:200] + "\\n")
sys.meta_path.insert(0, Notes())
"""
"""Every Python that starts writes down when it is about to look for pandas."""


class Noting:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "notes").mkdir()
        (folder / "notes/sitecustomize.py").write_text(NOTES)

    def run(self, *command: str) -> list[str]:
        """What the command and all that it started looked for, a line each."""
        path = os.pathsep.join([str(self._folder / "notes"), str(HERE.parent)])
        noted = self._folder / "noted"
        ran = subprocess.run(
            [sys.executable, *command], cwd=self._folder, env={**os.environ, "PYTHONPATH": path, "NOTES": str(noted)},
            capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return noted.read_text().splitlines() if noted.exists() else []


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    return Noting(tmp_path)


def test_pyarrow_alone_would(noting: Noting) -> None:
    assert len(noting.run("-c", "import pyarrow; pyarrow.array([0])")) == 1


def test_no_process_of_a_command_imports_pandas(noting: Noting, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("A text about the night.")
    quick = str(HERE / "quick_embedcli.py")
    assert noting.run(quick, "ingest", "docs", "--model", "minilm", "--dim", "32", "--index", "index") == []
    for words in (["search", "night", "index"], ["status", "index"], ["rows", "index"], ["verify", "index"]):
        assert noting.run(quick, *words) == []


def test_whoever_asks_for_the_objects_of_pandas_gets_them(noting: Noting) -> None:
    asked = "import embedcli.arrow, pyarrow as pa; assert pa.table({'a': [1, 2]}).to_pandas()['a'].sum() == 3"
    assert len(noting.run("-c", asked)) == 1
