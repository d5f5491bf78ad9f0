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
AT_MOST_TIMES = 5
"""As long as for as many sources in a few folders, at the same moment on the same machine."""


def test_thousands_of_guarded_folders_that_are_gone_are_judged_in_a_moment(tmp_path: Path) -> None:
    few_s, many_s = (seconds_to_freeze(tmp_path, folders, 60_000 // folders) for folders in (6, 6_000))
    assert many_s < AT_MOST_TIMES * few_s


def seconds_to_freeze(tmp_path: Path, folders: int, of_each: int) -> float:
    paths = [f"gone/{n // 100:02d}/{n % 100:02d}/{number}" for n in range(folders) for number in range(of_each)]
    paths += [f"here/{number:02d}" for number in range(20)]
    columns = {"root": ROOT.id, "path": pa.array(paths), "status": "indexed", "rows": 1, "shard": "part-0"}
    base = documents.in_walk_order(documents.of_columns(len(paths), columns), [ROOT.id])
    lost = {key for key in documents.keys(base) if key[1].startswith("gone/")}
    started = time.process_time()
    frozen = freeze(base, lost, [ROOT], rules(tmp_path), new_of=Counter())
    took_s = time.process_time() - started
    assert {text.split()[0] for text in frozen.folders.values()} == {"60,000"}
    return took_s


def test_thousands_of_folders_that_cannot_be_listed_keep_their_sources_in_a_moment() -> None:
    few_s, many_s = (seconds_to_judge(folders, 90_000 // folders) for folders in (2, 1_500))
    assert many_s < AT_MOST_TIMES * few_s


def seconds_to_judge(count: int, of_each: int) -> float:
    folders = [f"home/user{number:04d}" for number in range(count)]
    seen = [
        LastSeen(f"{folder}/{number:02d}", 1, 1, 1, 1, None, "", "indexed", None, 1, None, 1, 1, 0, 0)
        for folder in folders
        for number in range(of_each)
    ]
    plan = Plan.empty()
    problems = WalkProblems(unlisted=dict.fromkeys(folders, "permission"))
    started = time.process_time()
    Missing(plan, Scope(ROOT), (), rebuilding=False).judge(seen, problems)
    took_s = time.process_time() - started
    assert (len(plan.outcomes), plan.gone) == (len(seen), set())
    return took_s
