"""The comparison that is made on a card, with an engine that needs none: the script itself is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedcli.engines import torch_engine
from embedcli.engines.contract import Engine
from embedcli.models.resolve import resolve
from tests import bench_card
from tests.tiny_models import make_qwen


def test_equal_finds_no_difference_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 512 queries, a row longer than one of them, and a cut to fewer dimensions."""
    model = resolve(str(make_qwen(tmp_path, hidden=256)), report=print)
    for name, number in (("FIRST_ID", 5), ("LAST_ID", 490), ("END_ID", 495), ("LIST_ROWS", 12)):
        monkeypatch.setattr(bench_card, name, number)

    def open_with(dim: int) -> Engine:
        return torch_engine.open_engine(model, dim=dim, device="cpu")

    ways = {"one": open_with, "other": open_with}
    assert bench_card.equal(model, (1, 2, 17, 700), ways=ways, device="cpu") > 0.99999
    table = capsys.readouterr().out.splitlines()
    first, second = ["one alone", "one mixed", "one m/a"], ["other alone", "other mixed", "other m/a", "other /one"]
    wanted = ["tokens 1", *[*first, *second] * 2, *["its own"] * 2, "worst of"]
    assert [" ".join(line.split()[:2]) for line in table] == wanted
    assert max(map(len, table)) <= 100


def test_waits_has_a_row_for_each_engine_and_size_of_vector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = resolve(str(make_qwen(tmp_path)), report=print)
    for name, number in (("FIRST_ID", 5), ("LAST_ID", 490), ("WAITED_TOKENS", 10)):
        monkeypatch.setattr(bench_card, name, number)
    monkeypatch.setattr(bench_card, "WAITED_ROWS", (1, 16))
    bench_card.waits({"one": lambda dim: torch_engine.open_engine(model, dim=dim, device="cpu")}, (32, 64))
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[-3:] == ["1", "16", "rows"] and [row[:2] for row in rows] == [["one", "32"], ["one", "64"]]
    assert all(0 < float(took_ms) < 10_000 for row in rows for took_ms in row[2:])


def test_both_forward_passes_are_tried_unless_one_is_named() -> None:
    names = {words: [bench_card.name_of(way) for way in bench_card.ways_of(words.split())] for words in ("", "own fp8")}
    assert names == {"": ["sglang", "own"], "own fp8": ["own fp8"]}
