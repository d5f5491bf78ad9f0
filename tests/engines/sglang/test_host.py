"""What the host tells of SGLang's Engine; no SGLang needed."""

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


def test_the_page_is_the_one_that_sglang_settled_not_the_one_that_was_not_given() -> None:
    """The arguments keep what was given, None: taken for 1, a row could be let through that waits for ever."""
    opened = engine(given=None, resolved=64)
    assert SGLang(opened).facts() == {"pool_tokens": 5_000, "page_tokens": 64}
    opened.loop.close()


def test_a_page_that_was_never_settled_is_an_error_not_one_token() -> None:
    opened = engine(given=None, resolved=None)
    with pytest.raises(TypeError):
        SGLang(opened).facts()
    opened.loop.close()
