"""`--workers` on the command line: what is refused, and with which hint.

In: the program with an engine that needs no torch. Not here: a run over Ray (tests/cluster/test_ray_transport.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from embedcli.cli.values.workers import parse_workers
from embedcli.config import Workers
from embedcli.errors import UsageError
from tests.s3 import nobody_listens
from tests.workshop import Workshop, words

Command = Callable[..., Any]


@pytest.fixture
def asked(shop: Workshop, command: Command) -> Command:
    shop.write("a.txt", words(30))
    return lambda *flags: command("ingest", shop.docs, "--index", shop.index, "--dim", 16, *flags)


def test_how_many_workers_a_run_wants() -> None:
    assert parse_workers("ray://auto") == Workers(1, None)
    assert parse_workers("ray://auto,max=8") == Workers(1, 8)
    assert parse_workers("ray://auto,min=2,max=64") == Workers(2, 64)


@pytest.mark.parametrize(
    "value", ["auto", "ray:auto", "ray://auto,8", "ray://auto,most=8", "ray://auto,max=x", "ray://auto,min=0",
              "ray://auto,min=3,max=2", "ray://auto,min=1=2", "", "ray://auto,"]
)  # fmt: skip
def test_a_value_of_another_form_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--workers"):
        parse_workers(value)


def test_a_client_of_ray_is_refused(asked: Command, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = asked("--workers", "ray://head:10001")
    assert isinstance(ran.exception, UsageError) and "is the address of a Ray client" in str(ran.exception)
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    ran = asked("--workers", "ray://auto")
    assert isinstance(ran.exception, UsageError) and "`ray://head:10001`" in str(ran.exception)
    assert not shop.index.exists()


def test_cards_of_this_machine_are_not_named_for_workers(asked: Command) -> None:
    ran = asked("--workers", "ray://auto", "--gpus", "0,1")
    assert isinstance(ran.exception, UsageError) and ran.exception.hint == "leave `--gpus` out"


def test_without_ray_the_hint_names_the_extra(asked: Command, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as Python marks what cannot be imported
    ran = asked("--workers", "ray://auto")
    assert ran.exception.exit_code == 13 and "embedcli[ray]" in ran.exception.hint
    assert not shop.index.exists()


def test_without_a_cluster_the_run_ends_with_13_within_seconds(asked: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with nobody_listens() as endpoint:
        monkeypatch.setenv("RAY_ADDRESS", endpoint.removeprefix("http://"))
        ran = asked("--workers", "ray://auto")
    assert ran.exception.exit_code == 13 and "there is no Ray cluster to join" in str(ran.exception)
    assert "ray start --head" in ran.exception.hint


def test_an_unchanged_night_needs_no_cluster(asked: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    assert asked().exit_code == 0
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert asked("--workers", "ray://auto").exit_code == 0
