"""What a whole run makes of its engine's ways: what is told of them, and what stands in the index afterwards.

In: the real `ingest` with the real readers over engines of tests.engines. Not here: how the feeder gets there
(test_feeding.py), the nights after (test_nights.py).
"""

from __future__ import annotations

from typing import Any

from tests.workshop import Workshop, wide_engine, words


def test_a_chunk_with_an_id_that_the_model_has_not_is_left_out_and_its_source_named(shop: Workshop) -> None:
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
