"""The folder that the manifest names for queries is one in which the model lies, also after the environment moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import ModelUnavailable
from embedcli.models.resolve import of_recipe, resolve
from tests.published import damage, filled
from tests.tiny_models import make_bert
from tests.workshop import Workshop


def manifest(shop: Workshop) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((shop.index / "current/manifest.json").read_text())
    return data


def as_if_moved(shop: Workshop) -> dict[str, Any]:
    """The manifest of an index whose environment was moved since; returns it as it was."""
    before = manifest(shop)
    moved = {**before, "query": {**before["query"], "folder": "/opt/old-environment/minilm"}}
    (shop.index / "current/manifest.json").write_text(json.dumps(moved))
    return before


def test_a_run_with_nothing_to_do_mends_the_folder_of_the_model(shop: Workshop) -> None:
    filled(shop)
    before = as_if_moved(shop)
    had = shop.embedded
    summary = shop.ingest()
    assert (summary.generation, summary.sources["unchanged"], shop.embedded) == (1, 6, had)
    assert manifest(shop) == before and damage(shop) == []
    assert any("/opt/old-environment/minilm` is gone" in line for line in shop.report.said)
    shop.ingest()
    assert not any("for queries" in line for line in shop.report.said)


def test_a_run_that_only_tries_again_what_failed_mends_it_too(shop: Workshop) -> None:
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    filled(shop)
    before = as_if_moved(shop)
    assert shop.ingest(retry_failed=True).generation == 1
    assert manifest(shop) == before


def test_a_model_that_is_nowhere_is_a_warning_each_night_and_never_a_download(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.write("a.txt", "the index of the night " * 20)
    folder = make_bert(tmp_path / "model")
    shop.ingest(model=str(folder))
    before = manifest(shop)
    assert before["query"]["folder"] == str(folder)
    shutil.move(folder, tmp_path / "elsewhere")
    for _ in range(2):
        summary = shop.ingest()
        assert summary.exit_code == 0
        assert any("is gone: there is no such model folder" in line for line in shop.report.said)
    assert manifest(shop) == before


def test_a_recipe_names_its_model_by_id_commit_and_digests_and_another_one_is_refused(shop: Workshop) -> None:
    filled(shop)
    recipe = manifest(shop)["query"]
    assert {"model", "commit", "weights_sha256", "tokenizer_sha256"} <= recipe.keys()
    assert of_recipe(recipe | {"folder": "/gone"}).folder == resolve("minilm", report=lambda _: None).folder
    with pytest.raises(ModelUnavailable, match="is another model"):
        of_recipe(recipe | {"weights_sha256": "0"})
