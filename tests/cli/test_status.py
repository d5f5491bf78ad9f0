"""`embedcli status` on the command line: its text, the list of `--failed`, and what it prints during a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcli import records
from embedcli.verbs.status import status
from tests.held import Held
from tests.help_texts import text_of
from tests.published import TESTS, filled, index_of
from tests.workshop import Workshop, words


def test_failed_prints_paths_that_the_file_system_can_open(shop: Workshop, command: Callable[..., Any]) -> None:
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
    assert len(listed) == 6, "a line end in a file name does not start a line"


def test_status_counts_one_chunk_in_the_singular(shop: Workshop, command: Callable[..., Any]) -> None:
    shop.write("a.txt", words(5))
    shop.ingest()
    assert "chunks     1 chunk, " in command("status", shop.index).stdout


def test_status_fits_eighty_columns(kept: Workshop, command: Callable[..., Any]) -> None:
    lines = command("status", kept.index).stdout.splitlines()
    assert lines[1].startswith("generation 1, ")
    assert all(len(line) <= 80 or "/" in line for line in lines), "a path is never cut"


def stored(shop: Workshop) -> bool:
    """Whether a run in progress has written a checkpoint."""
    return any(shop.index.glob("staging/*/part-*.parquet"))


def test_status_and_verify_work_during_a_run_and_fit_eighty_columns(
    shop: Workshop, command: Callable[..., Any]
) -> None:
    shop.write("bad.pdf", b"%PDF-1.4 broken")
    filled(shop)
    for number in range(40):
        shop.write(f"new/{number}.txt", words(12, 1000 + number))  # of one chunk: whole when it is embedded
    order = {
        "sources": [str(shop.docs)], "index": str(shop.index), "log": str(shop.docs.parent / "log"), "max_tokens": 64,
        "flags": {"dim": 16, "max_tokens": 64, "checkpoint_every_s": 0.0},
    }  # fmt: skip
    driver = [sys.executable, str(TESTS / "crash_driver.py"), "serve"]
    held = Held(shop.docs.parent / "held", "list 4")
    env = {**os.environ, **held.environment}
    with subprocess.Popen(driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin and process.stdout
        print(json.dumps(order), file=process.stdin, flush=True)
        held.wait(process)
        while not ((running := status(index_of(shop)).running) and "phase" in running and stored(shop)):
            assert process.poll() is None
            time.sleep(0.02)
        seen = [command(*verb, shop.index) for verb in (("status",), ("status", "--failed"), ("verify",))]
        assert status(index_of(shop)).running, "the run is still going on"
        held.go()
        assert json.loads(process.stdout.readline())["status"] in (0, 3)
        process.stdin.close()
    assert [result.exit_code for result in seen] == [0, 0, 0]
    shown, failed, verified = (result.stdout for result in seen)
    assert "running    pid " in shown and " documents" in shown and "generation 1, " in shown
    assert "damaged" in failed and "bad.pdf" in failed
    assert verified.startswith("generation 1 is undamaged: 1 shard, ")
    for line in "".join(result.stdout for result in seen).splitlines():
        assert len(line) <= 80 or "/" in line, "a path is never cut"


@pytest.mark.parametrize(
    "flags", [("-0",), ("--reason", "no_text"), ("--failed", "--reason", "bad"), ("--failed", "-0", "--json")]
)
def test_flags_that_contradict_each_other_are_exit_2(
    kept: Workshop, command: Callable[..., Any], flags: tuple[str, ...]
) -> None:
    ran = command("status", kept.index, *flags)
    assert getattr(ran.exception, "exit_code", ran.exit_code) == 2


@pytest.mark.parametrize(
    ("heading", "reasons"),
    [
        ("in every run", records.MOMENT_REASONS),
        ("in the next three", records.RETRY_REASONS),
        ("when it changes", records.CONTENT_REASONS),
        ("the same, skipped", records.SKIP_REASONS - records.MOMENT_REASONS),
    ],
)
def test_the_help_says_of_each_reason_when_it_is_tried_again(heading: str, reasons: frozenset[str]) -> None:
    (said,) = re.findall(rf"^  {heading} .*\n(?:   .*\n)*", text_of("status"), re.MULTILINE)
    assert {reason for reason in records.REASONS if re.search(rf"\b{reason}\b", said)} == reasons
