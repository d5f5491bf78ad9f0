"""The cost of a run over workers is measured in a real one, over one worker, which embeds nothing again."""

from __future__ import annotations

import dataclasses
import threading
from functools import partial

import pytest

from embedcli.config import Options
from embedcli.errors import EngineError, Stopped
from embedcli.run.tools import Tools
from embedcli.verbs.bench.workers import coordinator_cpu_s
from tests.cluster_doubles import Double, _ReadsOrDies
from tests.workshop import SplitsHere, Workshop, _resolve, wide_engine, words

READS = partial(_ReadsOrDies, double=Double())


def tools_of(shop: Workshop) -> Tools:
    return Tools(
        _resolve, lambda _: "cpu", lambda model, settings, device: wide_engine(model, settings.dim, device, shop.log),
        make_pool=READS, make_splitter=SplitsHere,
    )  # fmt: skip


def test_the_cost_is_that_of_a_run_that_adopts_and_publishes_everything_again(shop: Workshop) -> None:
    for number in range(40):
        shop.write(f"{number}.txt", words(100, number))
    shop.ingest()
    before, embedded, threads = shop.content(), shop.embedded, threading.active_count()
    asked = Options(index=shop.index, sources=(str(shop.docs),))
    cpu_s = coordinator_cpu_s(asked, tools_of(shop))
    assert cpu_s is not None and 0 < cpu_s < 30
    assert (shop.index / "current").readlink().name == "000002" and shop.content() == before
    assert shop.embedded - embedded < 30, "the probe set alone"
    assert threading.active_count() <= threads  # one of another test may have ended


def test_a_signal_ends_it(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    tools = dataclasses.replace(tools_of(shop), stop_signal=lambda: 15)
    with pytest.raises(Stopped):
        coordinator_cpu_s(Options(index=shop.index, sources=(str(shop.docs),)), tools)


def test_without_a_worker_that_starts_nothing_is_said(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()

    def fails(*_: object) -> None:
        raise EngineError("the double does not start")

    tools = Tools(_resolve, lambda _: "cpu", fails, make_pool=READS, make_splitter=SplitsHere)  # type: ignore[arg-type]
    assert coordinator_cpu_s(Options(index=shop.index, sources=(str(shop.docs),)), tools) is None
