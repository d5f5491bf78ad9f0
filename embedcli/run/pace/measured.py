"""What earlier runs on this machine measured, from the history of the index.

In: `state/` of an index. Out: seconds and rates; zero or None where nothing was measured.
Not here: writing the history (begin.py).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcli.index.state import last_runs

RUNS_LOOKED_AT = 20
RUNS_PUBLISHED = 5


@dataclass(frozen=True)
class Measured:
    """`tokens_per_s`: of the engine while it was at work; None where no run has embedded anything."""

    tokens_per_s: float | None
    loading_s: float
    publishing_s: float


def measured(folder: Path, model_fingerprint: str) -> Measured:
    """What the last runs on this machine took that embedded with this model."""
    runs = [
        run
        for run in last_runs(folder, RUNS_LOOKED_AT)
        if run.get("host") == platform.node() and run.get("fingerprint") == model_fingerprint
    ]
    at_work = [run for run in runs if _seconds(run, "embedding") > 0]
    tokens, seconds = sum(run["tokens"]["embedded"] for run in at_work), sum(_seconds(r, "embedding") for r in at_work)
    return Measured(
        tokens_per_s=round(tokens / seconds, 1) if tokens else None,
        loading_s=_seconds(at_work[0], "loading") if at_work else 0.0,
        publishing_s=_seconds(runs[0], "publishing") if runs else 0.0,
    )


def published_in_s(folder: Path) -> float:
    """The longest publish of the last runs."""
    return max((_seconds(run, "publishing") for run in last_runs(folder, RUNS_PUBLISHED)), default=0.0)


def _seconds(run: Mapping[str, Any], stage: str) -> float:
    stages = run.get("seconds")
    return float(stages.get(stage, 0.0)) if isinstance(stages, dict) else 0.0
