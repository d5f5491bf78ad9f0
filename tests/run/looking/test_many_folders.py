"""Thousands of folders that are gone, or that cannot be listed: judging them takes time for each, not for each pair.

Not here: what is decided about them (test_compare.py).
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pyarrow as pa

from embedcli.index import documents
from embedcli.records import Root
from embedcli.run.looking.gone import freeze
from embedcli.run.looking.missing import Missing
from embedcli.run.plan import Plan
from embedcli.run.tasks import LastSeen
from embedcli.sources.roots import Scope
from embedcli.sources.walk import WalkProblems
from tests.run.looking.test_compare import rules

ROOT = Root("0" * 32, "/nowhere/docs")
AT_MOST_S = 3.0


def test_thousands_of_guarded_folders_that_are_gone_are_judged_in_a_moment(tmp_path: Path) -> None:
    paths = [f"gone/{folder // 100:02d}/{folder % 100:02d}/{number}" for folder in range(6_000) for number in range(10)]
    paths += [f"here/{number:02d}" for number in range(20)]
    columns = {"root": ROOT.id, "path": pa.array(paths), "status": "indexed", "rows": 1, "shard": "part-0"}
    base = documents.in_walk_order(documents.of_columns(len(paths), columns), [ROOT.id])
    lost = {key for key in documents.keys(base) if key[1].startswith("gone/")}
    started = time.process_time()
    frozen = freeze(base, lost, [ROOT], rules(tmp_path), new_of=Counter())
    assert time.process_time() - started < AT_MOST_S
    assert frozen.folders == {"/nowhere/docs/gone": "60,000 of 60,000"}


def test_thousands_of_folders_that_cannot_be_listed_keep_their_sources_in_a_moment() -> None:
    folders = [f"home/user{number:04d}" for number in range(1_500)]
    seen = [
        LastSeen(f"{folder}/{number:02d}", 1, 1, 1, 1, None, "", "indexed", None, 1, None, 1, 1, 0, 0)
        for folder in folders
        for number in range(60)
    ]
    plan = Plan.empty()
    problems = WalkProblems(unlisted=dict.fromkeys(folders, "permission"))
    started = time.process_time()
    Missing(plan, Scope(ROOT), (), rebuilding=False).judge(seen, problems)
    assert time.process_time() - started < AT_MOST_S
    assert (len(plan.outcomes), plan.gone) == (len(seen), set())
