"""Every command on an index in a bucket, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcli.config import index_folder
from embedcli.errors import UsageError
from embedcli.vault.opened import open_vault
from tests.s3 import S3
from tests.workshop import Workshop, words


@pytest.fixture
def place(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EMBEDCLI_CACHE", str(tmp_path / "cache"))
    return f"{s3.bucket()}/idx"


def said(result: Any, code: int = 0) -> Any:
    """The JSON object that a command printed."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_an_index_in_a_bucket_takes_every_command(
    command: Callable[..., Any], shop: Workshop, place: str, tmp_path: Path
) -> None:
    shop.write("a/red.txt", f"The red light means stop.\n{words(40)}")
    shop.write("b/other.txt", words(60, 1))
    flags = ("--model", "minilm", "--dim", 16, "--max-tokens", 64)
    assert said(command("ingest", shop.docs, "--index", place, *flags, "--json"))["index"] == place
    shop.write("c.txt", words(30, 2))
    forecast = said(command("ingest", "--index", place, "--dry-run", "--json"))
    assert forecast["sources"]["new"] == 1
    prometheus = tmp_path / "run.prom"
    assert said(command("ingest", "--index", place, "--metrics-file", prometheus, "--json"))["generation"] == 2
    assert f'index="{place}"' in prometheus.read_text()
    found = said(command("status", place, "--json"))
    assert (found["index"], found["generation"], len(found["runs"])) == (place, 2, 2)
    verdict = said(command("verify", place, "--json"))
    assert verdict["damage"] == [] and verdict["rows"] == found["chunks"]
    hits = said(command("search", "red light", place, "--mode", "words", "--json"))
    assert hits["index"] == place and hits["results"][0]["hits"][0]["path"] == "a/red.txt"
    rows = command("rows", place, "--columns", "path").stdout.splitlines()
    assert len(rows) == found["chunks"]
    listed = said(command("shards", place, "--json"))
    assert listed["generation"] == 2 and command("shards", place).stdout.split() == listed["shards"]
    changed = command("changes", place, "--since", 1).stdout.splitlines()
    assert {json.loads(line)["op"] for line in changed} == {"upsert", "done"}
    synced = said(command("sync", f"sqlite:{tmp_path / 'notes.db'}", place, "--json"))
    assert (synced["rows"], synced["table"], synced["index"]) == (found["chunks"], "idx", place)
    made = said(command("recut", place, "--out", tmp_path / "narrow", "--dim", 8, "--json"))
    assert made["index"] == place and made["rows"] == found["chunks"]
    assert said(command("forget", shop.docs / "b", "--index", place, "--json"))["generation"] == 3
    assert said(command("rollback", place, "--to", 2, "--json"))["generation"] == 2
    assert said(command("unlock", place, "--json"))["held_by"] is None
    assert said(command("verify", place, "--json"))["damage"] == []


def test_what_is_refused_names_the_bucket_and_not_the_mirror(
    command: Callable[..., Any], shop: Workshop, place: str, tmp_path: Path
) -> None:
    refused = command("status", place)
    assert refused.exit_code == 1 and f"`{place}` is not an index" in str(refused.exception)
    shop.write("a.txt", words(60))
    said(command("ingest", shop.docs, "--index", place, "--model", "minilm", "--dim", 16, "--json"))
    for arguments in (("ingest", "--index", place, "--dim", 32), ("rollback", place), ("rollback", place, "--to", 7)):
        error: Any = command(*arguments).exception
        assert place in f"{error} {error.hint}" and "mirrors" not in f"{error} {error.hint}", arguments
    for wrong in ("http://x/y", "s3://"):
        assert "is not the URL of a bucket" in str(command("status", wrong).exception)
    assert "is too long" in str(command("status", f"{place}/{'x' * 250}").exception)
    assert "must be a folder" in str(command("recut", place, "--out", "s3://b/narrow").exception)
    assert str(command("status", f"{place}/").exception or "") == "", "a slash at the end is no other index"


def test_without_a_home_the_variable_that_names_a_cache_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UsageError, match="there is no home") as raised:
        index_folder("s3://bucket/idx", {})
    assert "EMBEDCLI_CACHE" in raised.value.hint


def test_documents_and_index_share_a_bucket_and_the_index_is_no_source(
    command: Callable[..., Any], place: str, tmp_path: Path
) -> None:
    bucket = place.removesuffix("/idx")
    vault = open_vault(bucket)
    for name in ("docs/a.txt", "b.txt"):
        vault.put_new(name, words(60, len(name)).encode())
    flags = ("--model", "minilm", "--dim", 16, "--max-tokens", 64)
    assert said(command("ingest", bucket, "--index", place, *flags, "--json"))["sources"]["new"] == 2
    again = said(command("ingest", "--index", place, "--json"))["sources"]
    assert (again["unchanged"], again["new"], again["gone"]) == (2, 0, 0)
    assert "is the index itself" in str(command("ingest", f"{place}/vectors", "--index", place).exception)
