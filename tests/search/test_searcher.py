"""A search is exact over one generation: by vector, by words, by both, under conditions, while runs publish."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcli.columns import Floats
from embedcli.errors import DamagedShard, EngineDied, EngineError, NoIndex, UsageError
from embedcli.models.folder import Model
from embedcli.run.tools import Tools
from embedcli.search.query_vector import QueryVectors
from embedcli.search.searcher import MODES, Found, Searcher
from embedcli.verbs.edits.forget import forget
from embedcli.verbs.search import query_vectors as query_vectors_of
from tests.fake_engines import FakeEngine
from tests.published import index_of, silent, spoil
from tests.unprivileged import as_nobody
from tests.workshop import Workshop, _resolve, wide_engine, words

TEXTS = {
    "pumps/one.txt": "The pump AB-12-7 stops with error E-4711 when the inlet is blocked.",
    "pumps/two.txt": "The pump AB-12-8 stops with error E-4712 when the outlet is blocked.",
    "law/rent.txt": "§ 573 BGB names when a landlord may end a lease. The notice is in writing.",
    "law/sale.txt": "§ 433 BGB names what a seller owes. The notice of a defect is in writing.",
    "code/cpp.txt": "The parser is written in C++ and its tests in C#.",
    "cjk/ja.txt": "東京タワーの営業時間は九時からです。",
    "cjk/zh.txt": "合同在三十天内书面终止。",
    "cjk/ko.txt": "서울특별시 강남구 사무실의 임대 계약",
    "other/th.txt": "คู่มือการติดตั้งปั๊มน้ำสำหรับบ้าน",
    "other/ar.txt": "يجب تغيير مرشح الهواء كل ستة أشهر",
}


def query_vectors(shop: Workshop, opened: list[Any] | None = None) -> QueryVectors:
    def open_engine(model: Model) -> FakeEngine:
        engine = wide_engine(model, 16, "cpu", shop.log)
        (opened if opened is not None else []).append(engine)
        return engine

    return with_engine(shop, open_engine)


def with_engine(shop: Workshop, open_engine: Callable[[Model], FakeEngine]) -> QueryVectors:
    """The verb's own vectors, by an engine that needs no torch."""
    tools = Tools(_resolve, lambda _: "cpu", lambda model, settings, device: open_engine(model))
    return query_vectors_of(index_of(shop), lambda engine: tools, print)


def searcher(shop: Workshop) -> Searcher:
    return Searcher(index_of(shop), query_vectors(shop))


def paths(found: Found) -> list[str]:
    return [hit.row["path"] for hit in found.hits]


@pytest.fixture
def filled(shop: Workshop) -> Workshop:
    for path, text in TEXTS.items():
        shop.write(path, text)
    shop.ingest()
    return shop


def brute_force(shop: Workshop, query: Floats, count: int) -> list[str]:
    rows = shop.rows(["chunk_id", "vector"])
    scores = np.stack([np.array(row["vector"], np.float32) for row in rows]) @ query
    return [rows[at]["chunk_id"] for at in np.argsort(-scores)[:count]]


def test_by_vector_the_hits_are_those_of_numpy_over_every_row(kept: Workshop) -> None:
    for row in kept.rows(["vector"])[:5]:
        query = np.array(row["vector"], np.float32)
        found = searcher(kept).search(query, k=7)
        assert [hit.row["chunk_id"] for hit in found.hits] == brute_force(kept, query, 7)
        assert found.mode == "vector" and found.hits[0].score == pytest.approx(1.0)
        assert [hit.score for hit in found.hits] == sorted([hit.score for hit in found.hits], reverse=True)


def test_a_text_finds_the_chunk_that_says_exactly_it(filled: Workshop) -> None:
    """The fake engine gives equal ids the same vector, and MiniLM has no prompts."""
    for path, text in TEXTS.items():
        for mode in ("vector", "hybrid", None):
            hit = searcher(filled).search(text, mode=mode).hits[0]
            assert hit.row["path"] == path and hit.cosine == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("AB-12-8", "pumps/two.txt"),
        ("ab-12-7", "pumps/one.txt"),
        ("e-4712", "pumps/two.txt"),
        ("§ 573", "law/rent.txt"),
        ("§433", "law/sale.txt"),
        ("c++", "code/cpp.txt"),
        ("東京タワー", "cjk/ja.txt"),
        ("终止", "cjk/zh.txt"),
        ("강남구", "cjk/ko.txt"),
        ("ปั๊มน้ำ", "other/th.txt"),
        ("مُرشِّح", "other/ar.txt"),
    ],
)
def test_codes_and_words_of_every_script_are_found_by_words(filled: Workshop, query: str, path: str) -> None:
    found = searcher(filled).search(query, mode="words")
    assert paths(found)[0] == path and found.hits[0].cosine is None
    assert 0 < found.hits[0].score <= 1 and found.hits[0].score == found.hits[0].coverage


def test_rows_without_a_word_of_the_query_are_no_hits_by_words(filled: Workshop) -> None:
    assert searcher(filled).search("nowhere", mode="words").hits == ()
    assert searcher(filled).search("???", mode="words").hits == ()
    assert len(searcher(filled).search("???", mode="hybrid").hits) == 10


def test_a_hybrid_score_is_the_models_share_of_cosine_and_the_rest_of_coverage(filled: Workshop) -> None:
    found = searcher(filled).search("pump error E-4712")
    assert found.mode == "hybrid" and "pumps/two.txt" in paths(found)
    for hit in found.hits:
        assert hit.cosine is not None and hit.coverage is not None
        assert hit.score == pytest.approx(0.6 * hit.cosine + 0.4 * hit.coverage)


def test_scores_do_not_depend_on_how_the_rows_are_cut_into_shards(shop: Workshop, tmp_path: Path) -> None:
    one, many = shop, Workshop(tmp_path / "many")
    for path, text in TEXTS.items():
        one.write(path, text)
        many.write(path, text)
        many.ingest(keep_generations=1)
    one.ingest()
    assert len(list(many.index.glob("current/vectors/*.parquet"))) > 1
    for query in ("pump error E-4712", "notice in writing", "東京", TEXTS["cjk/ko.txt"]):
        for mode in ("hybrid", "vector", "words"):
            first, second = (searcher(place).search(query, mode=mode) for place in (one, many))
            seen = [[(hit.row["path"], hit.score, hit.cosine, hit.coverage) for hit in f.hits] for f in (first, second)]
            assert [hit[1] for hit in seen[0]] == [hit[1] for hit in seen[1]]
            assert sorted(seen[0]) == sorted(seen[1])  # of equal scores the id decides, which follows the folder's name


# ---- conditions


def test_where_is_a_condition_over_the_columns(filled: Workshop) -> None:
    found = searcher(filled).search("notice", where="path like 'law/%' and modified_at < now()")
    assert sorted(paths(found)) == ["law/rent.txt", "law/sale.txt"]
    assert searcher(filled).search("notice", where="false").hits == ()
    assert searcher(filled).search("pump", mode="words", where="path = 'pumps/two.txt'").hits[0].row["path"] == (
        "pumps/two.txt"
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('"is blocked" pump', ["pumps/one.txt", "pumps/two.txt"]),
        ('"OUTLET is  Blocked"', ["pumps/two.txt"]),
        ('"outlet is" "error e-4712"', ["pumps/two.txt"]),
        ('"let is blocked"', []),
        ('"is block"', []),
        ('"12-7 stops"', ["pumps/one.txt"]),
        ("“§ 573 BGB”", ["law/rent.txt"]),
        ('"C++"', ["code/cpp.txt"]),
        ('"営業時間"', ["cjk/ja.txt"]),
        ('"時"', ["cjk/ja.txt"]),
        ('"ติดตั้งปั๊ม"', ["other/th.txt"]),
        ('"blocked is"', []),
    ],
)
def test_what_stands_in_quotes_is_in_every_hit(filled: Workshop, query: str, expected: list[str]) -> None:
    for mode in MODES:
        assert sorted(paths(searcher(filled).search(query, mode=mode))) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("時", ["cjk/ja.txt"]),
        ("「時」?", ["cjk/ja.txt"]),
        ("三、终", ["cjk/zh.txt"]),
        ("...", []),
        ("三 時", []),
        ("강", ["cjk/ko.txt"]),
        ("ปั๊", ["other/th.txt"]),
        ('"の"', ["cjk/ja.txt"]),
        ('"火"', []),
        ('"-12-"', ["pumps/one.txt", "pumps/two.txt"]),
        ('"++"', ["code/cpp.txt"]),
    ],
)
def test_words_shorter_than_what_is_indexed_are_found_by_words_too(
    filled: Workshop, query: str, expected: list[str]
) -> None:
    """A character in the middle of a longer run; and signs in quotes, which are no words at all."""
    found = searcher(filled).search(query, mode="words")
    assert sorted(paths(found)) == expected


def test_where_and_quotes_both_hold(filled: Workshop) -> None:
    assert paths(searcher(filled).search('"is blocked"', where="path like '%one%'")) == ["pumps/one.txt"]


def test_one_quote_alone_is_a_letter(filled: Workshop) -> None:
    assert paths(searcher(filled).search('5" E-4712', mode="words")) == ["pumps/two.txt", "pumps/one.txt"]


def test_hits_below_the_least_score_are_left_out(filled: Workshop) -> None:
    every = searcher(filled).search("pump error E-4712")
    second = every.hits[1].score
    assert len(searcher(filled).search("pump error E-4712", min_score=second).hits) == 2
    assert searcher(filled).search("pump error E-4712", min_score=1.1).hits == ()


def test_more_of_the_same_needs_no_engine_and_leaves_itself_out(filled: Workshop) -> None:
    row = filled.rows(["chunk_id", "vector"])[3]
    opened: list[Any] = []
    found = Searcher(index_of(filled), query_vectors(filled, opened)).like(row["chunk_id"], k=5)
    expected = brute_force(filled, np.array(row["vector"], np.float32), 6)
    assert [hit.row["chunk_id"] for hit in found.hits] == expected[1:] and expected[0] == row["chunk_id"]
    assert opened == []


@pytest.mark.parametrize("id", ["", "x", "0" * 32, "é" * 32])
def test_more_of_a_chunk_that_is_not_there_is_an_error(filled: Workshop, id: str) -> None:
    with pytest.raises(UsageError, match="has no chunk"):
        searcher(filled).like(id)


def test_more_hits_than_rows_are_all_rows(filled: Workshop) -> None:
    for mode in ("hybrid", "vector"):
        found = searcher(filled).search("pump", k=1_000, mode=mode)
        assert len(found.hits) == found.rows == len(TEXTS)


# ---- generations


def test_a_search_sees_what_a_run_has_published_since(filled: Workshop) -> None:
    finder = searcher(filled)
    assert finder.search("giraffe", mode="words").hits == ()
    filled.write("zoo.txt", "A giraffe eats leaves.")
    filled.ingest()
    found = finder.search("giraffe", mode="words")
    assert paths(found) == ["zoo.txt"] and found.generation == 2


def test_an_unchanged_index_is_opened_once(filled: Workshop) -> None:
    finder = searcher(filled)
    assert finder.view() is finder.view()


def test_no_search_mixes_two_generations(shop: Workshop) -> None:
    """While generations are published, each of which says its number in every row, threads search on and on."""
    for name in "abcdef":
        shop.write(f"{name}.txt", f"number zero in {name}")
    shop.ingest()
    finder = searcher(shop)
    seen: list[tuple[int, set[str]]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                found = finder.search("number", mode="words", k=100)
                seen.append((found.generation, {hit.row["text"].split()[1] for hit in found.hits}))
                assert len(found.hits) == 6
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failed.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in ("one", "two", "three", "four"):
        for name in "abcdef":
            shop.write(f"{name}.txt", f"number {number} in {name}")
        shop.ingest(max_gone_percent=100.0)
    last = finder.search("number", mode="words").generation
    give_up_s = time.monotonic() + 60
    while not failed and last not in {generation for generation, _ in seen[-4:]} and time.monotonic() < give_up_s:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {(generation, *numbers) for generation, numbers in seen} <= {
        (1, "zero"), (2, "one"), (3, "two"), (4, "three"), (5, "four")
    }  # fmt: skip
    assert last == max(generation for generation, _ in seen) == 5


# ---- what is no search


@pytest.mark.parametrize("query", ["", "   ", '""', '" "', "\n"])
def test_an_empty_query_is_an_error(filled: Workshop, query: str) -> None:
    with pytest.raises(UsageError, match="the query is empty"):
        searcher(filled).search(query)


@pytest.mark.parametrize(
    "flags",
    [{"k": 0}, {"k": -1}, {"min_score": np.nan}, {"mode": "fuzzy"}, {"where": "path like"}, {"where": "nope = 1"}],
)
def test_impossible_flags_are_an_error_before_a_model_is_loaded(filled: Workshop, flags: dict[str, Any]) -> None:
    opened: list[Any] = []
    with pytest.raises(UsageError):
        Searcher(index_of(filled), query_vectors(filled, opened)).search("pump", **flags)
    assert opened == []


def test_a_vector_of_another_width_is_an_error(filled: Workshop) -> None:
    with pytest.raises(UsageError, match=r"shape \[3\]"):
        searcher(filled).search(np.ones(3, np.float32))


def test_a_query_vector_that_is_not_finite_is_refused(filled: Workshop) -> None:
    """Its scores would be no numbers, in any order."""
    with pytest.raises(UsageError, match="not finite"):
        searcher(filled).search(np.full(filled.table()["vector"].type.list_size, np.nan, np.float32))


def test_an_index_without_text_is_searched_by_vector_and_says_that_it_has_no_words(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest(no_text=True)
    found = searcher(shop).search("anything")
    assert found.mode == "vector" and len(found.hits) == found.rows > 0
    for query, mode in (("anything", "words"), ("anything", "hybrid"), ('"anything"', None)):
        with pytest.raises(UsageError, match="--no-text"):
            searcher(shop).search(query, mode=mode)


def test_an_index_of_which_every_document_is_gone_has_no_hits(filled: Workshop) -> None:
    forget(index_of(filled), str(filled.docs), warn=silent)
    for mode in ("hybrid", "words", "vector"):
        found = searcher(filled).search("anything", mode=mode)
        assert (found.rows, found.hits) == (0, ())


def test_what_is_not_an_index_is_an_error(shop: Workshop) -> None:
    with pytest.raises(NoIndex):
        searcher(shop).search("anything")
    assert not shop.index.exists()


def test_a_damaged_shard_is_an_error_that_names_it(filled: Workshop) -> None:
    (file,) = filled.index.glob("current/vectors/*.parquet")
    for at in range(100, file.stat().st_size - 2_000, 50):
        spoil(file, at=at)
    with pytest.raises(DamagedShard, match=file.stem):
        searcher(filled).search("pump", mode="words")


# ---- the model of the index


class Other(FakeEngine):
    """As another model under the same name would embed."""

    vocabulary = None

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        return super().embed([row[::-1] for row in rows])


def asking(shop: Workshop, engine: FakeEngine) -> Searcher:
    return Searcher(index_of(shop), with_engine(shop, lambda model: engine))


def test_an_engine_that_gives_other_vectors_is_refused_and_closed(filled: Workshop) -> None:
    engine = Other()
    with pytest.raises(EngineError, match="gives other vectors"):
        asking(filled, engine).search("pump")
    assert engine.closed


def test_another_model_under_the_same_name_is_refused(filled: Workshop) -> None:
    manifest = filled.index / "current/manifest.json"
    data = json.loads(manifest.read_text())
    data["fingerprints"]["model"] = "0" * 32
    manifest.write_text(json.dumps(data))
    with pytest.raises(EngineError, match="is not the model any more"):
        searcher(filled).search("pump")


class Listening(FakeEngine):
    vocabulary = None

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        self.seen += rows
        return super().embed(rows)


def test_a_query_that_is_too_long_is_cut_but_keeps_its_end_token(filled: Workshop) -> None:
    engine = Listening()
    asking(filled, engine).search("pump " * 5_000, mode="vector")
    ids = engine.seen[-1]
    assert ids.size == engine.max_tokens and ids[-1] == engine.seen[0][-1] and ids[-2] != ids[-1]


def test_the_engine_is_opened_once_for_many_queries(filled: Workshop) -> None:
    opened: list[Any] = []
    finder = Searcher(index_of(filled), query_vectors(filled, opened))
    for query in ("pump", "lease", "parser"):
        finder.search(query)
    assert len(opened) == 1


def test_words_alone_need_no_engine(filled: Workshop) -> None:
    opened: list[Any] = []
    Searcher(index_of(filled), query_vectors(filled, opened)).search("pump", mode="words")
    assert opened == []


class DiesOnce(FakeEngine):
    """Of the second query."""

    vocabulary = None
    asked = 0

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        self.asked += len(rows) == 1
        if self.asked == 11:  # nine times it is a text of the probe set
            raise EngineDied("the double died")
        return super().embed(rows)


def test_an_engine_that_dies_is_closed_and_the_next_query_opens_another(filled: Workshop) -> None:
    engine = DiesOnce()
    finder = asking(filled, engine)
    finder.search("pump")
    with pytest.raises(EngineDied):
        finder.search("pump")
    assert engine.closed and finder.search("pump").hits


# ---- a damaged cache


def answers(shop: Workshop) -> list[object]:
    """What the searches of every kind find, to the last bit."""
    finder = searcher(shop)
    row = shop.rows(["chunk_id", "vector"])[0]
    asked = [finder.search("notice in writing", mode=mode, k=4) for mode in ("words", "vector", "hybrid")]
    asked.append(finder.search('"error E-4712" pump'))
    asked += [finder.search(np.array(row["vector"], np.float32)), finder.like(row["chunk_id"])]
    return [[(hit.row["chunk_id"], hit.score, hit.cosine, hit.coverage) for hit in found.hits] for found in asked]


def test_no_page_of_a_damaged_cache_changes_a_hit(filled: Workshop) -> None:
    """A bit is flipped in every page of the cache in turn: the hits stay, and the file is as it was afterwards."""
    expected = answers(filled)
    (cache,) = filled.index.glob("cache/*.search")
    written = cache.read_bytes()
    for at in range(60, len(written), 1_024):
        spoil(cache, at=at)
        assert answers(filled) == expected, at
    cache.write_bytes(written[:-1] + b"?")
    assert answers(filled) == expected


def test_a_damaged_cache_is_built_again_by_the_search_that_meets_it_and_told(filled: Workshop) -> None:
    (cache,) = filled.index.glob("cache/*.search")
    written = cache.read_bytes()
    stored = np.array(filled.rows(["vector"])[0]["vector"], np.float32)
    spoil(cache, at=written.index(stored.tobytes()) + 2)
    said: list[str] = []
    finder = Searcher(index_of(filled, warn=said.append), query_vectors(filled))
    assert finder.search(stored, k=1).hits[0].score == pytest.approx(1.0)
    assert cache.read_bytes() == written
    assert said == [f"`{cache}` is damaged, and is built again"]
    assert finder.search(stored, k=1).hits and len(said) == 1


def test_who_may_not_write_searches_past_a_damaged_cache(filled: Workshop) -> None:
    expected = [path for found in (searcher(filled).search("pump error", mode="words"),) for path in paths(found)]
    (cache,) = filled.index.glob("cache/*.search")
    data = bytearray(cache.read_bytes())
    for at in range(4_500, len(data) - 200, 64):
        data[at] ^= 1
    cache.write_bytes(data)
    for path in (filled.index, *filled.index.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)

    def look() -> None:
        index = index_of(filled, warn=silent)
        assert paths(Searcher(index, query_vectors(filled)).search("pump error", mode="words")) == expected

    as_nobody(filled.index, look)
    assert cache.read_bytes() == bytes(data)


def test_a_passage_is_found_past_a_damaged_cache(filled: Workshop) -> None:
    row = filled.rows(["chunk_id", "text"])[0]
    (cache,) = filled.index.glob("cache/*.search")
    spoil(cache, at=cache.read_bytes().index(int(row["chunk_id"][:16], 16).to_bytes(8, "little")))
    assert searcher(filled).passage(row["chunk_id"])["text"] == row["text"]
