"""One contract for all engines, and what contract.py does for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcli.engines import contract
from embedcli.engines.contract import Engine, batch_cost, check_vectors, ids_problem, on_worker, pack, truncate
from embedcli.engines.nvml import Card
from embedcli.engines.probe import PROBE_TEXTS, Reference, compare_probe, judge, probe, probe_set
from embedcli.engines.sglang.engine import start_engine
from embedcli.engines.sglang.settings import GIB, SGLangSettings
from embedcli.errors import EngineDied, EngineError
from embedcli.models.folder import read_model
from tests.fake_engines import (
    EngineDiffersInBatches,
    EngineHangsOnKiller,
    EngineReturnsNaN,
    EngineTilts,
    FakeEngine,
)
from tests.tiny_models import make_bert, make_qwen

OpenWith = Callable[[int], Engine]


def torch_opener(make: Callable[[Path], Path], folder: Path) -> OpenWith:
    from embedcli.engines import torch_engine
    from embedcli.models.resolve import resolve

    model = resolve(str(make(folder)), report=print)
    return lambda dim: torch_engine.open_engine(model, dim=dim, device="cpu")


def sglang_opener(folder: Path) -> OpenWith:
    """SGLang's engine with a real host process, which runs a double of SGLang."""
    model = read_model(make_qwen(folder), name="qwen", commit=None, cache=None)
    card = Card(0, "GPU-1", "NVIDIA H100", (9, 0), 80 * GIB, 79 * GIB, "580.65", (13, 0))
    factory = "tests.hosted_doubles:open_sound_double"
    return lambda dim: start_engine(model, dim=dim, card=card, settings=SGLangSettings(), factory=factory)


def openvino_opener(make: Callable[[Path], Path], folder: Path) -> OpenWith:
    from embedcli.engines.openvino.engine import open_engine

    model = read_model(make(folder), name="tiny", commit=None, cache=None)
    return lambda dim: open_engine(model, dim=dim, say=print)


@pytest.fixture(scope="module", params=["fake", "torch_qwen", "torch_bert", "openvino_qwen", "openvino_bert", "sglang"])
def open_with(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenWith:
    """Opens the engine at the dim given; a new engine is one more parameter."""
    folder = tmp_path_factory.mktemp("model")
    if request.param == "fake":
        return lambda dim: FakeEngine(dim=dim)
    if request.param == "sglang":
        return sglang_opener(folder)
    opener = torch_opener if request.param.startswith("torch") else openvino_opener
    if opener is openvino_opener:
        pytest.importorskip("openvino")
    return opener(make_qwen if request.param.endswith("qwen") else make_bert, folder)


@pytest.fixture
def engine(open_with: OpenWith) -> Iterator[Engine]:
    opened = open_with(64)
    yield opened
    opened.close()


def some_rows(engine: Engine, count: int = 12) -> list[np.ndarray]:
    source = np.random.default_rng(7)
    top = engine.vocabulary or 100
    sizes = source.integers(1, min(engine.max_tokens, 120), count)
    return [source.integers(5, top, size, dtype=np.uint32) for size in sizes]


def embed(engine: Engine, rows: list[np.ndarray]) -> np.ndarray:
    return engine.submit(rows).result(60)


def test_vectors_are_float32_of_unit_length_one_for_each_chunk(engine: Engine) -> None:
    vectors = embed(engine, some_rows(engine))
    assert vectors.shape == (12, engine.dim) and vectors.dtype == np.float32
    assert check_vectors(vectors)[1].all()


def test_vectors_come_in_the_order_of_the_batch(engine: Engine) -> None:
    rows = some_rows(engine)
    np.testing.assert_allclose(embed(engine, rows)[::-1], embed(engine, rows[::-1]), atol=2e-2)


def test_a_chunk_has_the_same_vector_alone_and_in_a_batch(engine: Engine) -> None:
    rows = some_rows(engine)
    alone = np.concatenate([embed(engine, [row]) for row in rows])
    assert compare_probe(embed(engine, rows), alone) > 0.999


def test_an_empty_batch_has_an_empty_answer(engine: Engine) -> None:
    assert embed(engine, []).shape == (0, engine.dim)


def test_batches_submitted_at_once_are_all_answered(engine: Engine) -> None:
    rows = some_rows(engine)
    futures = [engine.submit([row]) for row in rows]
    assert compare_probe(np.concatenate([f.result(60) for f in futures]), embed(engine, rows)) > 0.999


def test_a_smaller_dim_is_the_renormalised_prefix(open_with: OpenWith) -> None:
    wide, narrow = open_with(64), open_with(16)
    rows = some_rows(wide)
    np.testing.assert_allclose(embed(narrow, rows), truncate(embed(wide, rows), 16), atol=1e-5)
    wide.close()
    narrow.close()


def test_the_longest_chunk_allowed_is_embedded(engine: Engine) -> None:
    row = np.full(min(engine.max_tokens, 4_096), 9, np.uint32)
    assert check_vectors(embed(engine, [row]))[1].all()


def test_the_engine_has_every_attribute_that_the_feeder_reads(engine: Engine) -> None:
    assert engine.batch_tokens >= 1 and engine.batch_rows >= 1 and engine.depth >= 1
    assert engine.vocabulary is None or engine.vocabulary > 0
    assert engine.device and isinstance(engine.padded, bool)
    assert engine.precision in ("float32", "bfloat16", "float16", "fp8")


def test_the_probe_set_agrees_alone_and_in_a_batch(engine: Engine) -> None:
    rows = probe_set(encode_within(engine.vocabulary or 1_000), engine.max_tokens)
    vectors = probe(engine, rows)
    assert compare_probe(vectors, vectors) == pytest.approx(1.0)


def test_close_may_be_called_twice(open_with: OpenWith) -> None:
    engine = open_with(64)
    engine.close()
    engine.close()


def test_a_worker_that_is_closed_answers_that_the_engine_died() -> None:
    """As where the program ends while a slow engine is still being checked."""
    worker = ThreadPoolExecutor(1)
    assert on_worker(worker, lambda batch: np.zeros((len(batch), 8)), [np.arange(3)]).result(10).shape == (1, 8)
    worker.shutdown()
    with pytest.raises(EngineDied):
        on_worker(worker, lambda batch: np.zeros((len(batch), 8)), [np.arange(3)]).result(10)


def encode_within(vocabulary: int) -> Callable[[str], np.ndarray]:
    def encode(text: str) -> np.ndarray:
        ids = [6 + byte % (vocabulary - 6) for byte in text.encode()]
        return np.array([*ids, 5], np.uint32)

    return encode


# What needs no engine.


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 600), max_size=80),
    batch_tokens=st.integers(1, 2_000),
    batch_rows=st.integers(1, 20),
    padded=st.booleans(),
)
def test_packing_keeps_every_chunk_and_both_limits(
    lengths: list[int], batch_tokens: int, batch_rows: int, padded: bool
) -> None:
    batches = pack(lengths, batch_tokens=batch_tokens, batch_rows=batch_rows, padded=padded)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        cost = batch_cost([lengths[index] for index in batch], padded=padded)
        assert len(batch) == 1 or (cost <= batch_tokens and len(batch) <= batch_rows)


def test_packing_a_look_ahead_wastes_under_five_percent() -> None:
    lengths = np.random.default_rng(1).lognormal(5.0, 1.0, 1_000).clip(4, 512).astype(int).tolist()
    batches = pack(lengths, batch_tokens=2_048, batch_rows=64, padded=True)
    cost = sum(batch_cost([lengths[index] for index in batch], padded=True) for batch in batches)
    assert 1 - sum(lengths) / cost < 0.05


def test_packing_starts_with_the_longest() -> None:
    assert pack([1, 9, 5], batch_tokens=9, batch_rows=9, padded=True) == [[1], [2], [0]]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (np.array([], np.uint32), "no tokens"),
        (np.zeros(5_000, np.uint32), "5000 tokens, 4096 at most"),
        (np.array([1, 10_000], np.uint32), "token id 10000 of 10000"),
        (np.array([-1], np.int64), "int64"),
        (np.zeros((1, 2), np.uint32), "[1, 2]"),
    ],
)
def test_ids_that_would_harm_an_engine_have_a_problem(row: np.ndarray, problem: str) -> None:
    assert problem in ids_problem(row, FakeEngine())
    assert ids_problem(np.array([1, 9_999], np.uint32), FakeEngine()) == ""


def test_a_tokenizer_of_another_model_fails_at_the_probe() -> None:
    with pytest.raises(EngineError, match="do not belong together: token id 10000 of 10000") as caught:
        probe(FakeEngine(), [np.array([1], np.uint32), np.array([10_000], np.uint32)])
    assert "embedcli pull" in caught.value.hint


def test_norms_within_two_percent_are_corrected_and_all_others_are_refused() -> None:
    unit = np.eye(6, dtype=np.float32)
    scales = np.array([1.0, 1.019, 0.981, 1.03, 0.0, np.nan], np.float32)
    vectors, sound = check_vectors(unit * scales[:, None])
    assert sound.tolist() == [True, True, True, False, False, False]
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[:3], unit[:3])


def test_truncation_cuts_first_and_renormalises_after() -> None:
    vectors = np.array([[3.0, 4.0, 12.0]], np.float64) / 13
    cut = truncate(vectors, 2)
    assert cut.dtype == np.float32
    np.testing.assert_allclose(cut, [[0.6, 0.8]], rtol=1e-6)
    assert not np.isfinite(truncate(np.full((1, 3), np.nan), 2)).any()
    assert (truncate(np.zeros((1, 3)), 2) == 0).all()


@pytest.mark.parametrize("max_tokens", [16, 256, 32_768])
def test_the_probe_set_has_its_lengths_and_ends_with_the_end_token(max_tokens: int) -> None:
    rows = probe_set(encode_within(1_000), max_tokens)
    wanted = [count for _, count in PROBE_TEXTS] + [2_048]
    assert [row.size for row in rows] == [min(count, max_tokens) for count in wanted]
    assert all(row[-1] == 5 and row.dtype == np.uint32 for row in rows)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (EngineDiffersInBatches(), "another vector in a batch than alone"),
        (EngineReturnsNaN(wrong=1.5), "not of unit length"),
    ],
)
def test_a_broken_engine_does_not_pass_the_probe(broken: FakeEngine, message: str) -> None:
    rows = [np.array([3, 7_777, 4, number], np.uint32) for number in range(3)]
    with pytest.raises(EngineError, match=message):
        probe(broken, rows)


AS_FAR_APART = [("fp8", 0.9977, True), ("fp8", 0.985, False), ("bfloat16", 0.9977, False)]
"""A precision, a cosine, and whether two vectors of a text that far apart may be from one model."""


@pytest.mark.parametrize(("precision", "cosine", "accepted"), AS_FAR_APART)
def test_vectors_of_8_bits_may_differ_more_in_a_batch(precision: str, cosine: float, accepted: bool) -> None:
    """A model of the shape of Qwen3-Embedding-4B gave 0.9977 in fp8 on a card, and so no run ever began."""
    rows = [np.array([3, 4, number], np.uint32) for number in range(3)]
    engine = EngineTilts(cosine, precision=precision, dim=128)
    if accepted:
        assert probe(engine, rows).shape == (3, 128)
    else:
        with pytest.raises(EngineError, match="another vector in a batch than alone"):
            probe(engine, rows)


@pytest.mark.parametrize(("precision", "cosine", "accepted"), AS_FAR_APART)
def test_vectors_of_8_bits_may_differ_more_from_those_of_the_index(
    precision: str, cosine: float, accepted: bool
) -> None:
    encode = encode_within(1_000)
    stored = Reference(probe(FakeEngine(dim=128), probe_set(encode, 512)), 512)
    engine = EngineTilts(cosine, precision=precision, dim=128, alone=True)
    if accepted:
        judged = judge(engine, stored, encode=encode, max_tokens=512, model="m")
        np.testing.assert_array_equal(judged.vectors, stored.vectors)
    else:
        with pytest.raises(EngineError, match="gives other vectors than those of the index"):
            judge(engine, stored, encode=encode, max_tokens=512, model="m")


def test_an_engine_that_hangs_at_the_probe_is_dead() -> None:
    with pytest.raises(EngineDied):
        probe(EngineHangsOnKiller(), [np.array([7_777], np.uint32)], timeout_s=0.01)


def test_the_probe_tells_another_model_apart() -> None:
    now = np.eye(4, dtype=np.float32)
    assert compare_probe(now, now) == 1.0
    assert compare_probe(now, now[::-1]) == 0.0
    assert compare_probe(now, now[:, :2]) == -1.0


def test_the_contract_loads_no_torch() -> None:
    imported = Path(contract.__file__).read_text(encoding="utf-8")
    assert "import torch" not in imported and "import transformers" not in imported
