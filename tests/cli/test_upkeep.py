"""The commands that look after an index, as the command line prints them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcli.errors import EmbedcliError, EngineError, UsageError
from embedcli.index import state
from embedcli.verbs.status import status
from tests.published import TESTS, filled, hold, index_of, sha256_of, spoil, two_roots
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


def test_verify_exits_3_with_the_damage_and_0_with_one_line(kept: Workshop, command: Callable[..., Any]) -> None:
    sound = command("verify", kept.index)
    assert (sound.exit_code, sound.stdout.count("\n")) == (0, 1)
    (kept.index / "current" / "probe.npy").unlink()
    broken = command("verify", kept.index)
    assert (broken.exit_code, broken.stdout) == (3, "generations/000001/probe.npy: is missing\n")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_damage_is_told_and_noted_on_a_read_only_disk_and_beside_an_engine_that_does_not_start(
    kept: Workshop, command: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)
    told = command("verify", kept.index, "--probe", "--engine", "broken", *flags)
    assert told.exit_code == 3 and "its sha256 is not" in told.stdout
    assert "the probe set was not compared" in told.stderr and "embedcli ingest --index" in told.stderr
    assert state.read_damaged(kept.index / "state") == {shard.stem}
    shutil.rmtree(kept.index / "state")
    (kept.index / "state").write_text("no folder")
    again = command("verify", kept.index, *flags)
    assert again.exit_code == 3 and again.stdout == told.stdout
    assert "the damage cannot be noted" in again.stderr


def test_an_engine_that_does_not_start_is_its_own_error_where_nothing_is_damaged(
    kept: Workshop, command: Callable[..., Any]
) -> None:
    assert isinstance(command("verify", kept.index, "--probe", "--engine", "broken").exception, EngineError)


def test_damage_is_noted_beside_the_lock_of_a_dead_host(kept: Workshop, command: Callable[..., Any]) -> None:
    hold(kept, host="far-away")
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)
    assert command("verify", kept.index).exit_code == 3
    assert state.read_damaged(kept.index / "state") == {shard.stem}


@pytest.mark.parametrize("how", ["documents.parquet", "manifest.json", "current"])
def test_every_verb_that_reads_says_what_to_type_when_a_file_is_lost(
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


def test_a_probe_set_that_there_is_none_of_yet_is_not_called_compared(
    kept: Workshop, command: Callable[..., Any]
) -> None:
    file, manifest = kept.index / "current" / "probe.npy", kept.index / "current" / "manifest.json"
    np.save(file, np.zeros((0, 16), np.float32))
    data = json.loads(manifest.read_bytes())
    data["files"]["probe.npy"] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    manifest.write_text(json.dumps(data))
    assert "no probe set to compare with yet" in command("verify", kept.index, "--probe").stdout


def test_failed_paths_are_those_of_the_file_system(shop: Workshop, command: Callable[..., Any]) -> None:
    names = [b"caf\xe9.pdf", b"50%41.pdf", b"two\nlines.pdf", b"-dash.pdf"]
    for name in names:
        Path(os.fsdecode(os.fsencode(shop.docs) + b"/" + name)).write_bytes(b"%PDF-1.4 broken")
    filled(shop)
    result = command("status", shop.index, "--failed", "--reason", "damaged", "-0")
    paths = result.stdout_bytes.split(b"\0")
    assert sorted(paths) == sorted([b"", *(os.fsencode(shop.docs) + b"/" + name for name in names)])
    assert all(os.path.exists(path) for path in paths if path)
    listed = command("status", shop.index, "--failed").stdout.splitlines()
    assert listed[0].split() == ["4", "damaged"]
    assert len(listed) == 6, "a line's end in a name makes no line"


def test_status_fits_eighty_columns(kept: Workshop, command: Callable[..., Any]) -> None:
    lines = command("status", kept.index).stdout.splitlines()
    assert lines[1].startswith("generation 1, ")
    assert all(len(line) <= 80 or "/" in line for line in lines), "a path is never cut"


def test_the_reading_verbs_work_while_a_run_is_under_way_and_fit_eighty_columns(
    shop: Workshop, command: Callable[..., Any]
) -> None:
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    filled(shop)
    for number in range(40):
        shop.write(f"new/{number}.txt", words(60, 1000 + number))
    order = {
        "sources": [str(shop.docs)], "index": str(shop.index), "log": str(shop.docs.parent / "log"), "max_tokens": 64,
        "batch_s": 0.1, "flags": {"dim": 16, "max_tokens": 64, "checkpoint_every_s": 0.0},
    }  # fmt: skip
    driver = [sys.executable, str(TESTS / "crash_driver.py"), "serve"]
    with subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        print(json.dumps(order), file=process.stdin, flush=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            running = status(index_of(shop)).running
            if running and "phase" in running and list(shop.index.glob("staging/*/part-*.parquet")):
                break
            time.sleep(0.02)
        seen = [command(*verb, shop.index) for verb in (("status",), ("status", "--failed"), ("verify",))]
        assert status(index_of(shop)).running, "it runs still"
        assert json.loads(process.stdout.readline())["status"] in (0, 3)
        process.stdin.close()
    assert [result.exit_code for result in seen] == [0, 0, 0]
    told, failed, verified = (result.stdout for result in seen)
    assert "running    pid " in told and " documents" in told and "generation 1, " in told
    assert "damaged" in failed and "bad.pdf" in failed
    assert verified.startswith("generation 1 is sound: 1 shard, ")
    for line in "".join(result.stdout for result in seen).splitlines():
        assert len(line) <= 80 or "/" in line, "a path is never cut"


@pytest.mark.parametrize(
    "flags", [("-0",), ("--reason", "no_text"), ("--failed", "--reason", "bad"), ("--failed", "-0", "--json")]
)
def test_flags_that_cannot_be_meant_are_exit_2(
    kept: Workshop, command: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    assert command("status", kept.index, *flags).exit_code == 2


@pytest.mark.parametrize("verb", ["status", "verify", "rollback", "unlock"])
def test_two_indexes_cannot_be_meant(kept: Workshop, command: Callable[..., Any], verb: str) -> None:
    error = command(verb, kept.index, "--index", kept.docs).exception
    assert isinstance(error, UsageError) and "are two indexes" in str(error)
    assert isinstance(command(verb, "").exception, UsageError), "nor is an empty one the one of this folder"
    if verb != "rollback":  # there is nothing to go back to
        assert command(verb, kept.index, "--index", kept.index).exit_code == 0


def test_errors_of_the_verbs_are_of_the_tree(kept: Workshop, command: Callable[..., Any]) -> None:
    for arguments in (("forget", "/no/root"), ("rollback",), ("moved", "/no/root", kept.docs)):
        assert isinstance(command(*arguments, "--index", kept.index).exception, EmbedcliError)
