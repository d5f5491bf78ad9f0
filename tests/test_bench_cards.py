"""The comparison of one card with two, with engines that need none: the script itself is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedcli.engines import torch_engine
from embedcli.engines.contract import Engine
from embedcli.models.folder import Model
from tests import bench_cards
from tests.fake_engines import CARDS
from tests.tiny_models import make_qwen


def test_the_same_documents_are_embedded_with_one_card_and_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run embeds all of them, and the engines are opened once each."""
    opened = []

    def open_engine(model: Model, *, dim: int, settings: Any, **_: Any) -> Engine:
        opened.append(settings.gpus)
        return torch_engine.open_engine(model, dim=dim, device="cpu")

    monkeypatch.setattr(bench_cards, "read_cards", lambda numbers: [CARDS[number] for number in numbers])
    monkeypatch.setattr(bench_cards, "open_engine", open_engine)
    bench_cards.main(str(make_qwen(tmp_path, hidden=256)), "0.004", "0,1")
    one, two, times = capsys.readouterr().out.splitlines()[-3:]
    assert sorted(opened) == [(0,), (1,)]
    assert (one.split()[1], two.split()[1]) == ("0", "0,1")
    assert one.split()[2] == two.split()[2]
    assert times.startswith("2 cards: ")
