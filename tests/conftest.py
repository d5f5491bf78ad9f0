"""Fixtures that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workshop import Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """An empty corpus beside an index that does not exist yet."""
    return Workshop(tmp_path)
