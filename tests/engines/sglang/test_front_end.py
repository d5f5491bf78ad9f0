"""SGLang's own front-end at work: which rows it takes, what a signal does to it, and that it leaves nothing behind.

One engine serves the first half of these tests; the starts that fail have each their own.
Not here: the death of an engine that was ready (test_deaths.py).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedcli.engines.contract import check_vectors, ids_problem
from embedcli.engines.feeder import Feeder
from embedcli.engines.probe import probe, probe_set
from embedcli.engines.sglang.engine import SGLangEngine
from embedcli.engines.sglang.guard import group_members, wait_for_group
from embedcli.engines.sglang.settings import SGLangSettings
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.models.folder import Model, read_model
from tests.front_ends import ANSWER_S, DIM, HANG_ID, NAN_ID, left_behind, needs_sglang, open_front_end, shared_memory
from tests.tiny_models import make_qwen
from tests.workshop import Workshop, words

pytestmark = needs_sglang
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(make_qwen(tmp_path_factory.mktemp("qwen")), name="qwen", commit=None, cache=None)


@pytest.fixture(scope="module")
def engine(model: Model) -> Iterator[SGLangEngine]:
    started = open_front_end(model)
    assert shared_memory(), "there is something to remove"
    yield started
    started.close()


def row(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint32)


def group_of(engine: SGLangEngine) -> int:
    return engine._host._group.process.pid


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


# One engine.


def test_eight_batches_in_flight_come_back_each_in_the_order_of_its_rows(engine: SGLangEngine) -> None:
    batches = [[row(number % 200, turn, 7) for number in range(256)] for turn in range(8)]
    answers = [future.result(ANSWER_S) for future in [engine.submit(rows) for rows in batches]]
    again = [future.result(ANSWER_S) for future in [engine.submit(rows[::-1]) for rows in batches]]
    for answer, turned in zip(answers, again, strict=True):
        assert answer.shape == (256, DIM) and answer.dtype == np.float32
        np.testing.assert_array_equal(answer, turned[::-1])
    assert len({one.tobytes() for answer in answers for one in answer}) == 8 * 200, "rows differ as their ids do"


def test_norms_are_those_of_bfloat16_and_pass_our_check(engine: SGLangEngine) -> None:
    delivered = engine.submit([row(number, 9) for number in range(100)]).result(ANSWER_S)
    assert np.abs(np.linalg.norm(delivered, axis=1) - 1).max() > 1e-4
    vectors, sound = check_vectors(delivered)
    assert sound.all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_our_check_finds_a_vector_that_is_not_finite(engine: SGLangEngine) -> None:
    _, sound = check_vectors(engine.submit([row(1, 2), row(NAN_ID, 2)]).result(ANSWER_S))
    assert sound.tolist() == [True, False]


def test_one_token_and_the_longest_row_pass_the_front_end(engine: SGLangEngine, model: Model) -> None:
    longest = np.arange(model.max_tokens, dtype=np.uint32) % 200
    assert engine.submit([row(5), longest]).result(ANSWER_S).shape == (2, DIM)


def test_a_row_one_token_too_long_is_refused_by_the_front_end_and_before_that_by_us(
    engine: SGLangEngine, model: Model
) -> None:
    over = np.arange(model.max_tokens + 1, dtype=np.uint32) % 200
    assert ids_problem(over, engine) == f"{model.max_tokens + 1} tokens, {model.max_tokens} at most"
    with pytest.raises(EngineDied, match="ValueError"):
        engine.submit([over]).result(ANSWER_S)
    assert engine.submit([row(5)]).result(ANSWER_S).shape == (1, DIM), "the next list does not suffer"


@pytest.mark.parametrize(("bad", "said"), [(row(), "no tokens"), (row(498), "token id 498 of 498")])
def test_bad_rows_that_the_front_end_accepts_are_refused_by_us(
    engine: SGLangEngine, bad: np.ndarray, said: str
) -> None:
    assert ids_problem(bad, engine) == said


def test_the_probe_set_agrees_alone_and_in_a_batch(engine: SGLangEngine) -> None:
    rows = probe_set(lambda text: np.array([*(byte % 200 for byte in text.encode()), 5], np.uint32), 512)
    assert probe(engine, rows).shape == (9, DIM)


def test_a_batch_that_was_sent_cannot_be_cancelled(engine: SGLangEngine) -> None:
    """If the request were cancelled, SGLang would go on computing rows that nobody waits for."""
    future = engine.submit([row(5)])
    assert not future.cancel()
    assert future.result(ANSWER_S).shape == (1, DIM)


def test_neither_ctrl_c_nor_sigterm_reaches_the_host(engine: SGLangEngine) -> None:
    members = group_members(group_of(engine))
    assert len(members) >= 3, "the guard, the host and the scheduler"
    for number in (signal.SIGINT, signal.SIGTERM):
        for member in members:
            os.kill(member, number)
    assert engine.submit([row(5)]).result(ANSWER_S).shape == (1, DIM)
    time.sleep(6)  # SGLang's own handler would have taken the tree with it by now
    assert engine.submit([row(5)]).result(ANSWER_S).shape == (1, DIM)
    assert group_members(group_of(engine)) == members


def test_a_whole_ingest_goes_through_the_front_end(engine: SGLangEngine, model: Model, shop: Workshop) -> None:
    for number in range(5):
        shop.write(f"{number}.txt", words(300, number))
    summary = shop.ingest(model=str(model.folder), open_engine=lambda *_: Kept(engine))
    assert summary.exit_code == 0
    assert summary.chunks["embedded"] == summary.chunks["total"] == len(shop.rows()) > 20
    first = shop.rows()[0]
    twin = shop.ingest(model=str(model.folder), rebuild=True, max_tokens=64, open_engine=lambda *_: Kept(engine))
    assert twin.chunks["reused"] == twin.chunks["total"]
    assert cosine(np.array(first["vector"]), np.array(shop.rows()[0]["vector"])) == pytest.approx(1)


def test_a_hang_is_noticed_and_killed_and_nothing_is_left(engine: SGLangEngine) -> None:
    """The last test with this engine. An hour of the feeder's clock is over in a second."""
    lines: list[str] = []
    engines = iter([engine])

    def open_engine() -> SGLangEngine:
        try:
            return next(engines)
        except StopIteration:
            raise EngineError("no second one", "") from None

    feeder = Feeder(open_engine, on_open=lambda _: None, report=lines.append, clock=lambda: 3_600 * time.monotonic())
    feeder.add(b"hangs", row(HANG_ID))
    feeder.flush()
    with pytest.raises(EngineError, match="no second one"):
        while True:
            feeder.finished(ANSWER_S)
    assert re.match(r"the engine is restarted: the engine has not answered for \d+ s", lines[0])
    assert not left_behind() and not group_members(group_of(engine))


class Kept:
    """The engine of all these tests: a run that ends does not close it."""

    def __init__(self, engine: SGLangEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Do nothing: the fixture closes the engine."""


# Starts that fail, and a parent that is killed.


def test_an_exception_at_the_start_is_quoted_in_the_error(model: Model) -> None:
    before = left_behind()
    with pytest.raises(EngineError, match="RuntimeError: no weights here"):
        open_front_end(model, "open_sglang_that_raises")
    assert left_behind() == before


def test_out_of_memory_at_the_start_is_raised_as_engine_out_of_memory(model: Model) -> None:
    before = left_behind()
    with pytest.raises(EngineOutOfMemory, match="CUDA out of memory. Tried to allocate 2.00 GiB"):
        open_front_end(model, "open_sglang_without_memory", settings=SGLangSettings(batch_tokens=2_048))
    assert left_behind() == before


def test_a_scheduler_killed_at_the_start_may_be_tried_again(model: Model) -> None:
    before = left_behind()
    with pytest.raises(EngineDied, match="while it started"):
        open_front_end(model, "open_sglang_that_dies")
    assert left_behind() == before


@pytest.mark.parametrize("name", ["open_sglang", "open_sglang_that_loads"])
def test_kill_9_of_our_process_leaves_nothing_at_work_or_while_it_starts(model: Model, name: str) -> None:
    code = f"""
import os
from pathlib import Path
from embedcli.engines.sglang.process import Host
from embedcli.engines.sglang.engine import host_environment
from embedcli.engines.sglang.settings import SGLangSettings, plan, read_shape
from embedcli.models.files import read_json
from tests.front_ends import CARD
folder = Path({str(model.folder)!r})
chosen = plan(CARD, read_shape(read_json(folder / "config.json")), max_tokens=512, asked=SGLangSettings())
job = {{"factory": "tests.fake_scheduler:{name}", "dim": 16, "warm_up": [],
        "arguments": {{"model_path": str(folder), **chosen.arguments}}}}
host = Host(job, environment=host_environment(os.environ, CARD))
print(host._group.process.pid, flush=True)
host.wait_until_ready(300)
print("ready", flush=True)
host.wait_until_ready(300)
input()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as ours:
        assert ours.stdout is not None
        group = int(ours.stdout.readline())
        if name == "open_sglang":
            assert ours.stdout.readline() == "ready\n"
        else:
            wait_for_scheduler(group)
        ours.kill()
    assert wait_for_group(group, 60.0)
    assert not left_behind(ours.pid)


def wait_for_scheduler(group: int) -> None:
    """Its process is there, and busy importing: it does not yet notice that its parent is gone."""
    deadline = time.monotonic() + 120
    while len(group_members(group)) < 4:  # the guard, the host, multiprocessing's tracker, the scheduler
        assert time.monotonic() < deadline
        time.sleep(0.05)
