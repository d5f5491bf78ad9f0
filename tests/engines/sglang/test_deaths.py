"""SGLang's own front-end when its scheduler dies: the error of each death, and a run that goes on without one chunk.

Each test has engines of its own, half a minute each. Not here: an engine that lives (test_front_end.py).
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from embedcli.engines.contract import Engine, Refusal
from embedcli.engines.feeder import Feeder
from embedcli.engines.sglang.engine import SGLangEngine
from embedcli.engines.sglang.guard import wait_for_group
from embedcli.errors import EngineDied, EngineOutOfMemory
from embedcli.models.folder import Model, read_model
from tests.front_ends import ANSWER_S, KILL_ID, NO_MEMORY_ID, RAISE_ID, left_behind, needs_sglang, open_front_end
from tests.tiny_models import make_qwen

pytestmark = needs_sglang


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return read_model(make_qwen(tmp_path_factory.mktemp("qwen")), name="qwen", commit=None, cache=None)


@pytest.mark.parametrize(
    ("token", "kind", "words"),
    [
        (RAISE_ID, EngineDied, "SGLang died: `RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling"),
        (NO_MEMORY_ID, EngineOutOfMemory, "CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
    ids=["device assert", "out of memory"],
)
def test_the_error_of_a_death_quotes_its_cause_and_no_file_or_process_is_left(
    model: Model, token: int, kind: type[EngineDied], words: str
) -> None:
    engine = open_front_end(model)
    sound = engine.submit([np.array([5], np.uint32)])
    assert sound.result(ANSWER_S).shape == (1, engine.dim)
    with pytest.raises(EngineDied) as caught:
        engine.submit([np.array([token, 5], np.uint32)]).result(ANSWER_S)
    assert type(caught.value) is kind and words in str(caught.value)
    assert isinstance(engine.submit([np.array([5], np.uint32)]).exception(ANSWER_S), kind), "it stays dead"
    engine.close()
    assert wait_for_group(engine._host._group.process.pid, 60.0) and not left_behind()


def test_one_killer_among_8_times_256_rows_is_found_and_all_others_are_embedded(model: Model) -> None:
    opened: list[SGLangEngine] = []
    lines: list[str] = []

    def open_engine() -> Engine:
        opened.append(open_front_end(model))
        return opened[-1]

    rows = [np.array([number % 200, number // 200, 7], np.uint32) for number in range(8 * 256)]
    rows[1_000] = np.array([KILL_ID, 1, 7], np.uint32)
    feeder = Feeder(open_engine, on_open=lambda _: None, report=lines.append)
    for number, row in enumerate(rows):
        feeder.add(b"%d" % number, row)
    feeder.flush()
    answers: dict[int, object] = {}
    while len(answers) < len(rows):
        answers |= {int(key): answer for key, answer in feeder.finished(1.0)}
    feeder.close(abort=False)
    assert answers.pop(1_000) == Refusal("engine_killed")
    assert len(answers) == 2_047 and all(isinstance(answer, np.ndarray) for answer in answers.values())
    assert len(opened) <= 6, "all eight batches, one of them, and an eighth of it three times over"
    assert not left_behind()
    words = r"the engine is restarted: SGLang died: `.*Subprocess scheduler_0 .*crashed with exit code -9"
    assert re.match(words, lines[0]), "a scheduler that is killed is told as such"
