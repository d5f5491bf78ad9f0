"""What earlier runs on this machine measured, from the history of the index.

In: `state/` of an index. Out: seconds and rates; zero or None where nothing was measured.
Not here: writing the history (begin.py).
"""

from __future__ import annotations

from pathlib import Path

from embedcli.index.state import last_runs

RUNS_LOOKED_AT = 5


def published_in_s(folder: Path) -> float:
    """The longest publish of the last runs."""
    return max((_seconds(run, "publishing") for run in last_runs(folder, RUNS_LOOKED_AT)), default=0.0)


def _seconds(run: dict[str, object], stage: str) -> float:
    stages = run.get("seconds")
    return float(stages.get(stage, 0.0)) if isinstance(stages, dict) else 0.0
