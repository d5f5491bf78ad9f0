"""The promises of `forget`, with the real `ingest` over a fake engine."""

from __future__ import annotations

import pytest

from embedcli.errors import InputError
from embedcli.verbs import forget
from embedcli.verbs.status import status
from tests.published import changes, damage, filled, index_of, silent, two_roots, vectors
from tests.workshop import Workshop, words


def test_forget_removes_a_root_and_its_rows(shop: Workshop) -> None:
    docs, other = two_roots(shop)
    gone = {row["chunk_id"] for row in shop.rows() if row["uri"].startswith(f"{other}/")}
    kept = {id_: vector for id_, vector in vectors(shop).items() if id_ not in gone}
    done = forget.forget(index_of(shop), str(other), warn=silent)
    assert (done.sources, done.chunks) == (2, len(gone))
    assert vectors(shop) == kept
    assert changes(shop, 2) == {"removed": gone}
    assert damage(shop) == []


def test_ingest_does_not_walk_a_forgotten_root(shop: Workshop) -> None:
    _, other = two_roots(shop)
    forget.forget(index_of(shop), str(other), warn=silent)
    shop.write("../more/z.txt", words(20, 7))
    summary = shop.ingest()
    assert (summary.generation, summary.sources["new"], summary.sources["unchanged"]) == (2, 0, 2)


def test_forgetting_the_last_root_leaves_an_empty_undamaged_generation(kept: Workshop) -> None:
    schema = kept.table().schema
    forget.forget(index_of(kept), str(kept.docs), warn=silent)
    assert kept.table().num_rows == 0
    assert kept.table().schema.equals(schema)
    assert damage(kept) == []
    assert status(index_of(kept)).roots == []


def test_a_run_without_sources_asks_for_a_root_after_the_last_was_forgotten(kept: Workshop) -> None:
    forget.forget(index_of(kept), str(kept.docs), warn=silent)
    with pytest.raises(InputError, match="has no roots any more") as caught:
        kept.ingest()
    assert f"--index {kept.index}" in caught.value.hint


def test_a_forgotten_root_is_ingested_again_without_embedding(shop: Workshop) -> None:
    filled(shop)
    before, had = vectors(shop), shop.embedded
    forget.forget(index_of(shop), str(shop.docs), warn=silent)
    shop.ingest(shop.docs)
    assert vectors(shop) == before
    assert shop.embedded == had
