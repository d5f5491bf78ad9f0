"""A whole run whose engine misbehaves: what the run reports, and what the index contains afterwards.

In: the real `ingest` with the real readers over engines of tests.fake_engines. Not here: how the feeder gets there
(engines/test_feeder.py), the nights after (test_nights.py).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from embedcli.errors import EngineError
from embedcli.fingerprints import PROBE_VERSION
from embedcli.report import Progress
from tests.fake_engines import EngineDiesOnBatch, FakeEngine
from tests.workshop import Lines, Workshop, wide_engine, words


def test_a_chunk_with_an_id_that_the_model_lacks_is_left_out_and_its_source_named(shop: Workshop) -> None:
    """The ids of the probe set and of all other documents are below it."""
    shop.write("good.txt", words(200))
    shop.write("bad.txt", "aア " * 5)

    def open_engine(model: Any, settings: Any, device: str) -> Any:
        engine = wide_engine(model, settings.dim, device, shop.log)
        engine.vocabulary = 30_214
        return engine

    assert shop.ingest(open_engine=open_engine).exit_code == 3
    statuses = {path: (row["status"], row["reason"]) for path, row in shop.documents().items()}
    assert statuses == {"good.txt": ("indexed", None), "bad.txt": ("failed", "bad_tokens")}
    assert any("a chunk is left out: token id 30219 of 30214" in line for line in shop.report.said)


class Watching(Lines):
    """Remembers each line of progress too; `loading` whenever one says that the model is."""

    def __init__(self) -> None:
        super().__init__()
        self.loading = threading.Event()

    def progress(self, progress: Progress, *, at_once: bool = False) -> None:
        self.said.append(progress.line())
        if progress.loading:
            self.loading.set()


def test_every_restart_of_the_engine_is_reported_with_its_seconds(shop: Workshop) -> None:
    for number in range(12):
        shop.write(f"{number}.txt", words(300, seed=number))
    opened: list[FakeEngine] = []
    report = Watching()

    def open_engine(model: Any, settings: Any, device: str) -> Any:
        report.loading.clear()
        assert report.loading.wait(60), "the loop of the run has looked in"
        engine = EngineDiesOnBatch(11 if len(opened) < 2 else 1_000_000)  # of the first batch after the probe set
        engine.dim, engine.vocabulary = settings.dim, None
        opened.append(engine)
        return engine

    assert shop.ingest(open_engine=open_engine, report=report).exit_code == 0
    phases = [line.partition(":")[0] for line in dict.fromkeys(report.said)]
    assert "loading the model" in phases and "loading the model again" in phases
    assert any(re.match(r"loading the model again: \d+ s; reading goes on", line) for line in report.said)
    assert report.said.count("warning: the engine is restarted: the double died") == 2


class Remembers(FakeEngine):
    """Every row, in the order sent."""

    vocabulary = None

    def __init__(self, dim: int, sent: list[np.ndarray]) -> None:
        super().__init__(dim=dim)
        self.sent = sent

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        self.sent.extend(rows)
        return super().submit(rows)


def test_the_probe_set_has_the_special_tokens_of_any_other_text(shop: Workshop) -> None:
    """Last-token pooling reads the last special token: without it the engine would be checked with rows of a kind that
    it never gets."""
    sent: list[np.ndarray] = []
    shop.write("a.txt", words(10))
    shop.ingest(open_engine=lambda model, settings, device: Remembers(settings.dim, sent))
    probe, chunk = sent[:9], sent[-1]
    assert (chunk[0], chunk[-1]) == (101, 102)
    assert all(row[-1] == 102 for row in probe)
    assert all(row[0] == 101 for row in probe if row.size > 1)


def turn_probe_round(shop: Workshop, **told: object) -> dict[str, object]:
    """Reverse the stored probe vectors and put their new digest into the manifest; returns the manifest as it was."""
    manifest, probe = shop.index / "current/manifest.json", shop.index / "current/probe.npy"
    data: dict[str, object] = json.loads(manifest.read_text())
    np.save(probe, -np.load(probe))
    written = {"bytes": probe.stat().st_size, "sha256": hashlib.sha256(probe.read_bytes()).hexdigest()}
    files = {**data["files"], "probe.npy": written}  # type: ignore[dict-item]
    manifest.write_text(json.dumps({**data, "files": files, **told}))
    return data


def test_a_probe_set_of_other_rows_is_embedded_anew_and_never_compared(shop: Workshop) -> None:
    shop.write("a.txt", words(50))
    shop.ingest()
    turn_probe_round(shop, probe_version=PROBE_VERSION - 1)
    shop.write("b.txt", words(50, seed=1))
    assert shop.ingest().exit_code == 0
    assert turn_probe_round(shop)["probe_version"] == PROBE_VERSION
    shop.write("c.txt", words(50, seed=2))
    with pytest.raises(EngineError, match="gives other vectors than those of the index"):
        shop.ingest()
