"""The SGLang engine from its opener to the feeder, over a host without SGLang. Fast, and on any machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedcli.engines.contract import Refusal, ids_problem
from embedcli.engines.feeder import Feeder
from embedcli.engines.nvml import Card
from embedcli.engines.probe import probe, probe_set
from embedcli.engines.several_cards import open_on_all
from embedcli.engines.sglang.engine import SGLangEngine, host_environment, kernel_caches, open_engine, start_engine
from embedcli.engines.sglang.guard import group_members
from embedcli.engines.sglang.settings import GIB, SGLangSettings
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.models.folder import Model, read_model
from tests.fake_engines import vector
from tests.hosted_doubles import HANG_ID, KILL_ID
from tests.tiny_models import make_bert, make_qwen

H100 = Card(0, "GPU-1", "NVIDIA H100", (9, 0), 80 * GIB, 79 * GIB, "580.65", (13, 0))
A10 = replace(H100, name="NVIDIA A10", capability=(8, 6), total_bytes=24 * GIB, free_bytes=22 * GIB)
DIM = 16

Start = Callable[..., SGLangEngine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(make_qwen(tmp_path_factory.mktemp("qwen")), name="qwen", commit=None, cache=None)


@pytest.fixture
def start(model: Model) -> Iterator[Start]:
    engines: list[SGLangEngine] = []

    def start_over(
        name: str = "open_double",
        *,
        card: Card = H100,
        said: list[str] | None = None,
        of: Model = model,
        forward: str = "sglang",
        version: str | None = None,
    ) -> SGLangEngine:
        started = start_engine(
            of,
            dim=DIM,
            card=card,
            settings=SGLangSettings(forward=forward),
            factory=f"tests.hosted_doubles:{name}",
            say=None if said is None else said.append,
            timeout_s=120,
            sglang_version=version,
        )
        engines.append(started)
        return started

    yield start_over
    for engine in engines:
        engine.close()


# The engine.


def test_the_engine_has_every_attribute_that_the_feeder_reads(start: Start, model: Model) -> None:
    engine = start()
    assert (engine.dim, engine.max_tokens, engine.device, engine.padded) == (DIM, model.max_tokens, "cuda", False)
    assert (engine.batch_tokens, engine.batch_rows, engine.depth) == (32_768, 256, 8)
    assert engine.vocabulary == 498


def test_rows_that_would_harm_sglang_are_refused_before_they_are_sent(start: Start) -> None:
    engine = start()
    longest = np.full(engine.max_tokens, 5, np.uint32)
    assert not ids_problem(longest, engine) and not ids_problem(np.array([497], np.uint32), engine)
    for row in (np.empty(0, np.uint32), np.append(longest, np.uint32(5)), np.array([498], np.uint32)):
        assert ids_problem(row, engine)


def test_the_longest_row_goes_through(start: Start) -> None:
    engine = start()
    longest = np.arange(engine.max_tokens, dtype=np.uint32) % 200
    np.testing.assert_array_equal(engine.submit([longest]).result(120)[0], vector(longest, DIM))


def test_the_probe_set_agrees_alone_and_in_a_batch(start: Start) -> None:
    rows = probe_set(lambda text: np.array([*(byte % 200 for byte in text.encode()), 5], np.uint32), 512)
    assert probe(start(), rows).shape == (9, DIM)


def test_the_start_is_reported_with_its_seconds(start: Start) -> None:
    said: list[str] = []
    start(said=said)
    assert said[0] == "starting SGLang on NVIDIA H100, batches of 32,768 tokens"
    assert len(said) == 2 and said[1].startswith("SGLang is ready after ")


# Which forward pass.


@pytest.fixture
def published(model: Model, tmp_path: Path) -> Model:
    """The tiny model with a config.json that states the sizes of a published model."""
    sizes = {"hidden_size": 1_024, "intermediate_size": 3_072, "num_attention_heads": 16, "num_key_value_heads": 8}
    config = json.loads((model.folder / "config.json").read_text()) | sizes | {"head_dim": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return replace(model, folder=tmp_path)


def test_our_forward_pass_is_named_to_sglang_where_it_was_tested(start: Start, published: Model) -> None:
    wants, said = "open_double_that_wants_our_forward", list[str]()
    start(wants, of=published, forward="own", version="0.5.23", said=said)
    assert not any("forward" in line for line in said)
    with pytest.raises(EngineError, match="not asked for"):
        start(wants, of=published, forward="sglang", version="0.5.23")


def test_with_an_untested_sglang_its_own_forward_pass_is_used_and_reported(start: Start, published: Model) -> None:
    said: list[str] = []
    refuses = "open_double_that_refuses_our_forward"
    start(refuses, of=published, forward="own", version="0.5.24", said=said)
    assert said[0] == "SGLang's own forward pass is used: ours was tested with SGLang 0.5.23, not 0.5.24"
    assert sum(line.startswith("starting") for line in said) == 1


def test_where_our_forward_pass_does_not_start_sglangs_is_used_and_the_reason_reported(
    start: Start, published: Model
) -> None:
    said: list[str] = []
    refuses = "open_double_that_refuses_our_forward"
    engine = start(refuses, of=published, forward="own", version="0.5.23", said=said)
    assert engine.submit([np.array([1], np.uint32)]).result(120).shape == (1, DIM)
    assert sum("own forward pass is used: ours does not start here" in line for line in said) == 1
    assert "ValueError: our forward pass needs: heads of 128" in said[-1] and "\n" not in said[-1]


def test_a_start_that_fails_with_both_forward_passes_raises_the_first_error(start: Start, published: Model) -> None:
    with pytest.raises(EngineError, match="no weights here"):
        start("open_double_that_raises", of=published, forward="own", version="0.5.23")


# Starts that fail.


def test_an_older_card_without_the_flash_kernel_is_started_without_it(start: Start) -> None:
    assert start("open_double_without_flash", card=A10).submit([np.array([1], np.uint32)]).result(120).shape == (1, DIM)


def test_an_older_card_on_which_the_flash_kernel_crashes_is_started_without_it(start: Start) -> None:
    said: list[str] = []
    engine = start("open_double_that_crashes_with_flash", card=A10, said=said)
    assert engine.submit([np.array([1], np.uint32)]).result(120).shape == (1, DIM)
    assert sum(line.startswith("starting") for line in said) == 2


def test_a_card_that_surely_has_the_flash_kernel_is_not_started_without_it(start: Start) -> None:
    with pytest.raises(EngineError, match="no kernel image"):
        start("open_double_without_flash")


def test_an_error_unrelated_to_kernels_is_not_tried_twice_on_an_older_card(start: Start) -> None:
    said: list[str] = []
    with pytest.raises(EngineError, match="no weights here"):
        start("open_double_that_raises", card=A10, said=said)
    assert len(said) == 1


def test_an_older_card_that_starts_with_neither_attention_raises_the_first_error(start: Start) -> None:
    """Without the kernel it would need more memory than there is, but the missing kernel is the cause."""
    tight = replace(A10, total_bytes=2 * GIB, free_bytes=int(1.138 * GIB))
    with pytest.raises(EngineError, match="no kernel image"):
        start("open_double_without_flash", card=tight)


def test_out_of_memory_at_the_start_is_tried_again_with_smaller_batches(start: Start) -> None:
    said: list[str] = []
    engine = start("open_double_short_of_memory", said=said)
    assert engine.batch_tokens == 8_192
    assert "Tried to allocate 2.00 GiB" in said[1] and said[1].endswith("trying batches of 8,192 tokens")


def test_out_of_memory_at_every_start_ends_in_an_error_after_a_few_tries(start: Start) -> None:
    said: list[str] = []
    with pytest.raises(EngineOutOfMemory, match="Tried to allocate 2.00 GiB"):
        start("open_double_without_memory", said=said)
    assert sum(line.startswith("starting") for line in said) == 3


def test_a_pool_in_which_the_longest_row_would_wait_for_ever_is_refused(start: Start) -> None:
    with pytest.raises(EngineError, match="room for 32,000 tokens on the card, a row may have 32,768"):
        start("open_double_with_small_pool")


def test_a_model_that_does_not_fit_is_refused_before_anything_starts(model: Model) -> None:
    full = replace(H100, free_bytes=GIB // 2)
    with pytest.raises(EngineError, match=r"needs \d+\.\d GiB") as caught:
        start_engine(model, dim=DIM, card=full, settings=SGLangSettings(), factory="not:there")
    assert caught.value.exit_code == 13


def test_a_model_with_another_pooling_is_refused_with_the_hint_to_use_torch(tmp_path: Path) -> None:
    bert = read_model(make_bert(tmp_path), name="bert", commit=None, cache=None)
    with pytest.raises(EngineError, match="this model needs `mean`") as caught:
        start_engine(bert, dim=DIM, card=H100, settings=SGLangSettings(), factory="not:there")
    assert caught.value.hint == "use `--engine torch`"


def test_a_dim_over_the_models_width_is_refused(model: Model) -> None:
    with pytest.raises(EngineError, match="64 components, not `65`"):
        start_engine(model, dim=65, card=H100, settings=SGLangSettings(), factory="not:there")


def test_the_error_of_a_missing_sglang_names_the_extra_to_install(model: Model) -> None:
    with pytest.raises(EngineError, match="SGLang is not installed") as caught:
        open_engine(model, dim=DIM, installed=lambda _: False)
    assert "pip install 'embedcli[gpu]'" in caught.value.hint and "--engine torch" in caught.value.hint


# What the host sees.


def test_the_host_sees_one_card_by_the_drivers_number_and_no_network() -> None:
    seen = host_environment({"CUDA_VISIBLE_DEVICES": "3,2", "HOME": "/home/u"}, replace(H100, index=2))
    assert seen["CUDA_VISIBLE_DEVICES"] == "2" and seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert seen["HF_HUB_OFFLINE"] == "1" and seen["HOME"] == "/home/u"


def test_one_variable_moves_every_cache_of_kernels() -> None:
    moved = kernel_caches({"HOME": "/home/u", "EMBEDCLI_CACHE": "/scratch", "TRITON_CACHE_DIR": "/mine"})
    assert moved.pop("TRITON_CACHE_DIR") == "/mine"
    assert len(moved) == 5 and all(path.startswith("/scratch/") for path in moved.values())
    assert set(kernel_caches({"XDG_CACHE_HOME": "/shared"}).values()) == {
        f"/shared/embedcli/{name}"
        for name in ("torchinductor", "triton", "flashinfer", "tvm-ffi", "sglang", "deep-gemm")
    }


# Under the feeder.


def test_one_killer_among_8_times_256_rows_is_found_and_all_others_are_embedded(start: Start) -> None:
    lines: list[str] = []
    feeder = Feeder(start, on_open=lambda _: None, report=lines.append)
    rows = [np.array([number % 200, number // 200, 7], np.uint32) for number in range(8 * 256)]
    rows[1_000] = np.array([KILL_ID, 1, 7], np.uint32)
    answers = feed(feeder, rows)
    assert answers.pop(1_000) == Refusal("engine_killed")
    assert len(answers) == 2_047
    for number, answer in answers.items():
        assert isinstance(answer, np.ndarray)
        np.testing.assert_allclose(answer, vector(rows[number], DIM), atol=1e-6)
    assert sum("is restarted" in line for line in lines) <= 5


def test_a_hang_is_ended_and_the_rest_goes_on(start: Start) -> None:
    """The feeder's clock moves on only while nothing but the hanging row is awaited."""
    now = [0.0]
    sent: list[tuple[Future[np.ndarray], bool]] = []

    def clock() -> float:
        awaited = [hangs for future, hangs in sent if not future.done()]
        now[0] += 5.0 if awaited and all(awaited) else 0.0
        return now[0]

    def noting() -> SGLangEngine:
        engine = start()
        submit = engine.submit

        def noted(rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
            sent.append((submit(rows), any(HANG_ID in row for row in rows)))
            return sent[-1][0]

        engine.submit = noted  # type: ignore[method-assign]
        return engine

    feeder = Feeder(noting, on_open=lambda _: None, report=lambda _: None, clock=clock)
    rows = [np.array([number, 7], np.uint32) for number in range(20)]
    rows[3] = np.array([HANG_ID, 7], np.uint32)
    answers = feed(feeder, rows)
    assert answers.pop(3) == Refusal("engine_killed") and len(answers) == 19


def test_one_of_two_hosts_that_is_killed_costs_nothing_and_comes_back(model: Model) -> None:
    """Two cards, two processes; the batches of the dead process are answered by the other."""
    factory, said, opened = "tests.hosted_doubles:open_double", [], []

    def start(card: Card, stop: threading.Event) -> SGLangEngine:
        opened.append(
            start_engine(
                model, dim=DIM, card=card, settings=SGLangSettings(), factory=factory, stop=stop, timeout_s=120
            )
        )
        return opened[-1]

    both = open_on_all([H100, replace(H100, index=1)], start, warn=said.append, revive_after_s=0.1)
    rows = [np.array([number % 200, number // 200], np.uint32) for number in range(4_000)]
    os.killpg(opened[0]._host._group.process.pid, signal.SIGSTOP)  # it has lists when it is killed, and no answer
    futures = [both.submit(rows[place : place + 100]) for place in range(0, 4_000, 100)]
    os.killpg(opened[0]._host._group.process.pid, signal.SIGKILL)
    answers = np.concatenate([future.result(120) for future in futures])
    np.testing.assert_allclose(answers, np.stack([vector(row, DIM) for row in rows]), atol=1e-6)
    deadline = time.monotonic() + 120
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "is lost, 1 at work: SGLang died" in said[0] and said[1].endswith("is back, 2 at work")
    both.close()
    assert len(opened) == 3
    assert not any(group_members(engine._host._group.process.pid) for engine in opened)
    assert not any(engine._host._group.folder.exists() for engine in opened)


def feed(feeder: Feeder, rows: list[np.ndarray]) -> dict[int, object]:
    for number, row in enumerate(rows):
        feeder.add(b"%d" % number, row)
    feeder.flush()
    answers: dict[int, object] = {}
    while len(answers) < len(rows):
        answers |= {int(key): answer for key, answer in feeder.finished(30.0)}
    feeder.close(abort=False)
    return answers


def test_an_engine_that_never_starts_ends_the_run_after_three_restarts(start: Start) -> None:
    feeder = Feeder(lambda: start("open_double_that_is_killed"), on_open=lambda _: None, report=lambda _: None)
    feeder.add(b"1", np.array([1], np.uint32))
    feeder.flush()
    with pytest.raises(EngineError, match="restarted 3 times without progress") as caught:
        while True:
            feeder.finished(30.0)
    assert not isinstance(caught.value, EngineDied)
