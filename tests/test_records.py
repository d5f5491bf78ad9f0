"""Names, ids and reasons: what every stage shares."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcli.index import documents
from embedcli.records import Source, from_printable, from_printable_path, printable, printable_path, stat_of
from embedcli.run.tasks import TaskList
from embedcli.sources.buckets.contract import object_stat

NAMES = st.binary(min_size=1, max_size=24).filter(lambda name: b"\0" not in name and b"/" not in name)
TRICKY = st.text("aé%25F/", min_size=1).map(str.encode)


@given(NAMES | TRICKY)
def test_a_printable_name_leads_back_to_its_bytes(name: bytes) -> None:
    assert from_printable(printable(name)) == name


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_printable_path_is_that_of_the_walk_and_leads_back_to_its_bytes(names: list[bytes]) -> None:
    """The walk encodes a name when it meets it, before it knows those that are in it."""
    shown = printable_path(b"/".join(names))
    assert shown == "/".join(map(printable, names)) and from_printable_path(shown) == b"/".join(names)


@pytest.mark.parametrize("year", [1, 1601, 1970, 2400, 9999])
def test_a_time_of_any_year_is_one_that_the_table_of_documents_holds(year: int) -> None:
    seconds = int((datetime(year, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    times = {"st_mtime_ns": seconds * 10**9, "st_ctime_ns": seconds * 10**9}
    found = os.stat_result((0o100600, 7, 1, 1, 0, 0, 5, seconds, seconds, seconds), times)
    for stat in (stat_of(found), object_stat(5, seconds, 7)):
        tasks = TaskList(documents.empty())
        tasks.add(Source("0" * 32, "a.txt", "/docs/a.txt", stat), None)
        assert [task.source.stat for task in tasks] == [stat]
        assert stat.mtime_ns == seconds * 10**9 or year not in range(1678, 2262)
