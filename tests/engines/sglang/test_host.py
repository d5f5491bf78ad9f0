"""The facts that the host reports about SGLang's Engine; no SGLang needed."""

from __future__ import annotations

import asyncio
import sys
import types
from types import SimpleNamespace

import pytest

from embedcli.engines.sglang.host import SGLang


def engine(*, given: int | None, resolved: int | None) -> SimpleNamespace:
    arguments = SimpleNamespace(page_size=given, resolved_dict=lambda: {"page_size": resolved})
    init = SimpleNamespace(scheduler_infos=[{"max_total_num_tokens": 5_000}])
    return SimpleNamespace(loop=asyncio.new_event_loop(), server_args=arguments, _scheduler_init_result=init)


@pytest.fixture(autouse=True)
def io_struct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sglang", "sglang.srt", "sglang.srt.managers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    module = types.ModuleType("sglang.srt.managers.io_struct")
    vars(module)["EmbeddingReqInput"] = object
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_page_size_is_the_resolved_one_and_not_the_missing_argument() -> None:
    """The argument stays None as given. Were it read as 1, a row could be accepted that then waits for ever."""
    opened = engine(given=None, resolved=64)
    assert SGLang(opened).facts() == {"pool_tokens": 5_000, "page_tokens": 64}
    opened.loop.close()


def test_a_page_size_that_was_never_resolved_is_an_error_and_not_one_token() -> None:
    opened = engine(given=None, resolved=None)
    with pytest.raises(TypeError):
        SGLang(opened).facts()
    opened.loop.close()
