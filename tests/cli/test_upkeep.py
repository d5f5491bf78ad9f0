"""What all commands that look after an index have in common: one JSON object, errors with hints, one index."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from embedcli.errors import EmbedcliError, UsageError
from tests.published import filled, two_roots
from tests.workshop import Workshop, words


def test_every_verb_prints_one_json_object(shop: Workshop, command: Callable[..., Any]) -> None:
    _, other = two_roots(shop)
    new = other.rename(shop.docs.parent / "elsewhere")
    where = ("--index", shop.index, "--json")
    for arguments in (
        ("status",), ("status", "--failed"), ("verify",), ("verify", "--probe"), ("moved", other, new),
        ("forget", new), ("rollback",), ("unlock",),
    ):  # fmt: skip
        result = command(*arguments, *where)
        assert json.loads(result.stdout)["exit_code"] == result.exit_code == 0, (arguments, result.output)


@pytest.mark.parametrize("how", ["documents.parquet", "manifest.json", "current"])
def test_status_and_verify_name_the_rollback_when_a_file_is_lost(
    shop: Workshop, command: Callable[..., Any], how: str
) -> None:
    filled(shop, 2)
    shop.write("new.txt", words(20, 5))
    shop.ingest()
    (shop.index / how if how == "current" else shop.index / "current" / how).unlink()
    for verb in (("status",), ("status", "--failed"), ("verify",)):
        result = command(*verb, shop.index)
        said = f"{result.stderr}{getattr(result.exception, 'hint', '')}"
        assert "embedcli rollback --to " in said, verb
        assert result.exit_code == 3 or isinstance(result.exception, EmbedcliError)


@pytest.mark.parametrize("verb", ["status", "verify", "rollback", "unlock"])
def test_two_different_indexes_are_exit_2(kept: Workshop, command: Callable[..., Any], verb: str) -> None:
    error = command(verb, kept.index, "--index", kept.docs).exception
    assert isinstance(error, UsageError) and "are two different indexes" in str(error)
    assert isinstance(command(verb, "").exception, UsageError), "an empty name does not mean the present folder"
    if verb != "rollback":  # this index has no older generation
        assert command(verb, kept.index, "--index", kept.index).exit_code == 0


def test_invalid_arguments_of_verbs_raise_errors_with_an_exit_code(kept: Workshop, command: Callable[..., Any]) -> None:
    for arguments in (("forget", "/no/root"), ("rollback",), ("moved", "/no/root", kept.docs)):
        assert isinstance(command(*arguments, "--index", kept.index).exception, EmbedcliError)
