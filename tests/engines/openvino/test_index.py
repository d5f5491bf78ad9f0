"""An index goes on with either engine on the CPU: the same fingerprint, no vector computed again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino")

from embedcli.config import CpuFlags, IndexSettings
from embedcli.engines.choose import open_on_cpu
from embedcli.engines.openvino import runtime
from embedcli.models.folder import Model
from tests.tiny_models import make_bert
from tests.workshop import Workshop, words

Open = Callable[[Model, IndexSettings, str], Any]


def opener(engine: str, precision: str | None = None) -> Open:
    return lambda model, settings, _: open_on_cpu(
        model, dim=settings.dim, engine=engine, cpu=CpuFlags(precision=precision), say=print
    )


OPENVINO, TORCH = opener("openvino"), opener("torch")


def precisions(shop: Workshop) -> list[str]:
    found: list[str] = json.loads((shop.index / "current/manifest.json").read_text())["query"]["precisions"]
    return found


@pytest.mark.parametrize(("first", "then"), [(TORCH, OPENVINO), (OPENVINO, TORCH)])
def test_an_index_goes_on_with_the_other_engine(shop: Workshop, tmp_path: Path, first: Open, then: Open) -> None:
    model = str(make_bert(tmp_path / "model"))
    shop.write("a.txt", words(200))
    begun = shop.ingest(model=model, open_engine=first)
    shop.write("b.txt", words(50, 1))
    summary = shop.ingest(open_engine=then)
    assert (summary.chunks["embedded"], summary.sources["unchanged"]) == (
        summary.chunks["total"] - begun.chunks["total"],
        1,
    )
    assert begun.fingerprint == summary.fingerprint
    assert precisions(shop) == sorted({"float32", runtime.precisions()[0]})


def test_a_rebuild_with_another_model_records_its_own_precision_alone(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", words(20))
    shop.ingest(model=str(make_bert(tmp_path / "model")), open_engine=OPENVINO)
    assert precisions(shop) == [runtime.precisions()[0]]
    shop.ingest(model=str(make_bert(tmp_path / "another", seed=1)), open_engine=TORCH, rebuild=True)
    assert precisions(shop) == ["float32"]
