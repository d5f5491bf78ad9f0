"""The cache of searches after a publish: the same whether one process builds it or several, and none is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from embedcli.index.generations import Index
from embedcli.index.shards import Shard
from embedcli.search import complete as module
from embedcli.search.complete import complete
from embedcli.search.sidecars import build
from embedcli.vault.disk import Disk
from tests.published import index_of
from tests.workshop import Workshop, words


@pytest.fixture
def several(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """An index of four shards without a cache, on a machine where three processes are worth their start."""
    for number in range(4):
        shop.write(f"{number}.txt", words(200, number))
        shop.ingest()
    index_of(shop).disk.remove(shop.index / "cache")
    monkeypatch.setattr(module, "usable_cores", lambda: 3)
    monkeypatch.setattr(module, "ROWS_A_PROCESS", 1)
    return shop


def cache(shop: Workshop) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (shop.index / "cache").iterdir()}


def test_several_processes_build_what_one_builds(several: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[list[str]] = []
    helper = module._Helper

    def noted(folder: Path, shards: list[Shard]) -> module._Helper:
        parts.append([shard.name for shard in shards])
        return helper(folder, shards)

    monkeypatch.setattr(module, "_Helper", noted)
    own: list[str] = []

    def built(shard: Shard, *, with_text: bool, folder: Path) -> dict[str, np.ndarray]:
        own.append(shard.name)
        return build(shard, with_text=with_text, folder=folder)

    monkeypatch.setattr(module, "build", built)
    complete(index_of(several))
    by_several = cache(several)
    assert len(parts) == 2 and len(by_several) == 4
    assert sorted([*own, *parts[0], *parts[1]]) == sorted(name.removesuffix(".search") for name in by_several)
    index_of(several).disk.remove(several.index / "cache")
    monkeypatch.setattr(module, "MOST_PROCESSES", 1)
    complete(index_of(several))
    assert cache(several) == by_several and len(parts) == 2
    assert not psutil.Process().children()


def test_what_a_killed_helper_leaves_is_built_in_the_end(several: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: module._Helper, folder: Path, shards: list[Shard]) -> None:
        start(self, folder, shards)
        os.kill(self._process.pid, signal.SIGKILL)

    start = module._Helper.__init__
    monkeypatch.setattr(module._Helper, "__init__", killed)
    said: list[str] = []
    complete(Index(several.index, disk=Disk(), warn=said.append))
    assert len(cache(several)) == 4 and not said


def test_without_another_process_one_builds_all(several: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(module, "spawn", refused)
    complete(index_of(several))
    assert len(cache(several)) == 4


def test_helpers_are_gone_when_the_run_is_stopped_meanwhile(several: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "build", stopped)
    with pytest.raises(KeyboardInterrupt):
        complete(index_of(several))
    assert not psutil.Process().children()


def test_a_small_generation_starts_no_process(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("a.txt", words(200))
    shop.ingest()
    index_of(shop).disk.remove(shop.index / "cache")
    monkeypatch.setattr(module, "spawn", lambda *_, **__: pytest.fail("a process was started"))
    complete(index_of(shop))
    assert len(cache(shop)) == 1
