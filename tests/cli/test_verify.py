"""`embedcli verify` on the command line: what it prints, and what it notes for the next run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from embedcli.errors import EngineError
from embedcli.index import state
from tests.published import hold, note_file, spoil
from tests.workshop import Workshop


def test_verify_exits_3_with_the_damage_and_0_with_one_line(kept: Workshop, command: Callable[..., Any]) -> None:
    sound = command("verify", kept.index)
    assert (sound.exit_code, sound.stdout.count("\n")) == (0, 1)
    (kept.index / "current" / "probe.npy").unlink()
    broken = command("verify", kept.index)
    assert (broken.exit_code, broken.stdout) == (3, "generations/000001/probe.npy: is missing\n")


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_damage_is_printed_and_noted_even_if_the_disk_is_read_only_or_the_engine_does_not_start(
    kept: Workshop, command: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)
    printed = command("verify", kept.index, "--probe", "--engine", "broken", *flags)
    assert printed.exit_code == 3 and "its sha256 is not" in printed.stdout
    assert "the probe set was not compared" in printed.stderr and "embedcli ingest --index" in printed.stderr
    assert state.read_damaged(kept.index / "state") == {shard.stem}
    shutil.rmtree(kept.index / "state")
    (kept.index / "state").write_text("a file, not a folder")
    again = command("verify", kept.index, *flags)
    assert again.exit_code == 3 and again.stdout == printed.stdout
    assert "cannot note the damage" in again.stderr and "hint: run the same command again" in again.stderr


def test_an_engine_that_does_not_start_is_an_engine_error_when_there_is_no_damage(
    kept: Workshop, command: Callable[..., Any]
) -> None:
    assert isinstance(command("verify", kept.index, "--probe", "--engine", "broken").exception, EngineError)


def test_damage_is_noted_although_a_dead_host_has_locked_the_index(kept: Workshop, command: Callable[..., Any]) -> None:
    hold(kept, host="far-away")
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)
    assert command("verify", kept.index).exit_code == 3
    assert state.read_damaged(kept.index / "state") == {shard.stem}


def test_verify_says_when_the_index_has_no_probe_set_yet(kept: Workshop, command: Callable[..., Any]) -> None:
    file = kept.index / "current" / "probe.npy"
    np.save(file, np.zeros((0, 16), np.float32))
    note_file(kept, file)
    assert "the index has no probe set yet" in command("verify", kept.index, "--probe").stdout
