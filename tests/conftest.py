"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fake_cards import make_machine
from tests.workshop import Workshop

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers have the cores, torch's threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """An empty corpus beside an index that does not exist yet."""
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with an NVIDIA card, driver, torch and SGLang being fakes."""
    return make_machine(tmp_path_factory.mktemp("driver"))
