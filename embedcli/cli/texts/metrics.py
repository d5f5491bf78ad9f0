"""The figures of a run as a file in Prometheus text format, as node_exporter's textfile collector reads it.

In: what came of a run; where it failed, what the history says of the last one that ended well. Out: the file, replaced
in one step; what is no file, as a device, is written to.
Not here: counting (run/summary.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcli.config import shown_index
from embedcli.errors import EmbedcliError
from embedcli.paths import exists, is_file
from embedcli.report import Summary, say_warning

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

SUCCESSES = (0, 3)
"""The exit codes of runs after which the index is current."""

RUNS_SEARCHED = 1_000
STATES = ("indexed", "partial", "stale", "failed", "skipped")
CHANGES = ("new", "changed", "moved", "unchanged", "gone", "excluded")


@contextmanager
def metrics_file(path: Path | None, index: Path) -> Iterator[list[Summary]]:
    """Write the file at the end of the block, however it ends; the block adds the Summary of a run that ended well.

    A file that cannot be written is a warning: the run has done its work.
    """
    ended: list[Summary] = []
    exit_code = 1
    try:
        yield ended
        exit_code = ended[-1].exit_code if ended else 0
    except EmbedcliError as error:
        exit_code = error.exit_code
        raise
    finally:
        if path is not None:
            _write(
                path, shown_index(index), exit_code, ended[-1].to_json() if ended else _last_success(index / "state")
            )


def _last_success(state: Path) -> Mapping[str, Any]:
    """The line of the history of the last run that ended well; empty where there is none."""
    from embedcli.index.state import last_runs

    good = (run for run in last_runs(state, RUNS_SEARCHED) if "verb" not in run and run.get("exit_code") in SUCCESSES)
    return next(good, {})


def _write(path: Path, index: str, exit_code: int, content: Mapping[str, Any]) -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    add = _Gauges(registry, index)
    add("last_run_timestamp_seconds", "When the last run ended.", time.time())
    add("last_run_exit_code", "Its exit code.", exit_code)
    if content:
        ended_at = content.get("ended_at")
        moment = datetime.fromisoformat(ended_at).timestamp() if ended_at else time.time()
        add("last_success_timestamp_seconds", "When a run last ended with the exit code 0 or 3.", moment)
        _add_content(add, content)
    try:
        _put(path, registry)
    except OSError as error:
        say_warning(f"cannot write `{path}`: {error.strerror}")


def _put(path: Path, registry: CollectorRegistry) -> None:
    """Replace a file, at the end of its links; a device or a pipe, such as /dev/null, is written to and never replaced,
    which root could do to that of the machine."""
    from prometheus_client import generate_latest, write_to_textfile

    if is_file(path) or not exists(path):
        write_to_textfile(os.path.realpath(path), registry)
        return
    with open(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "wb") as stream:  # a pipe that nobody reads is an error
        stream.write(generate_latest(registry))


def _add_content(add: _Gauges, run: Mapping[str, Any]) -> None:
    """What a run that ended well has found and done; a line of an older history lacks the newer figures."""
    sources = {**run["sources"], "indexed": run.get("indexed", 0)}
    add.each("sources", "Sources of the index, by state.", "state", {name: sources.get(name, 0) for name in STATES})
    found = {name: sources.get(name, 0) for name in CHANGES}
    add.each("run_sources", "Sources, by what the run found of them.", "change", found)
    add.each("failures", "Sources that are not indexed or only in part, by reason.", "reason", run["failures"])
    add("new_failures", "Sources that failed as they had not before.", run["failures_new"])
    add("left_sources", "Sources that the run has left for the next one.", run.get("left", {}).get("sources", 0))
    add("complete", "1 when nothing was left.", run["complete"])
    add("generation", "The current generation.", run["generation"] or 0)
    add("chunks", "Chunks of the index.", run["chunks"]["total"])
    add("tokens", "Tokens of the index.", run["tokens"]["total"])
    add("run_embedded_tokens", "Tokens that the run embedded.", run["tokens"]["embedded"])
    add("run_tokens_per_second", "How many of them in a second.", run["tokens_per_s"])
    add("run_seconds", "How long the run took.", run["elapsed_s"])
    stages = "How long it took, by stage; some go on side by side."
    add.each("run_stage_seconds", stages, "stage", run.get("seconds", {}))


class _Gauges:
    """Adds gauges of one index to a registry."""

    def __init__(self, registry: CollectorRegistry, index: str) -> None:
        self._registry = registry
        self._index = index

    def __call__(self, name: str, help_text: str, value: float) -> None:
        self._gauge(name, help_text).labels(self._index).set(value)

    def each(self, name: str, help_text: str, label: str, values: Mapping[str, float]) -> None:
        gauge = self._gauge(name, help_text, label)
        for key, value in values.items():
            gauge.labels(self._index, key).set(value)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Any:
        from prometheus_client import Gauge

        return Gauge(f"embedcli_{name}", help_text, ("index", *labels), registry=self._registry)
