"""The folder in which hints are carried out has blanks in its name: what is pasted into a shell must work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workshop import Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "a folder", index="the index")
