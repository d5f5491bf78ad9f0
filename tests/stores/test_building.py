"""While PostgreSQL builds the index of vectors, the report shows how far it is, what the server says, and what to type:
that works."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from embedcli.stores import building
from embedcli.stores.building import Build
from embedcli.stores.contract import Layout
from tests.stores.conftest import Place
from tests.stores.test_traps import MEMORY, rows, store_of
from tests.workshop import Lines

ROWS, DIM = 4000, 128


@pytest.fixture
def small(make_place: Callable[[str], Place]) -> Place:
    """A database whose builds get a megabyte, for which a fourth of the rows is too many."""
    import psycopg

    place = make_place("postgresql")
    with psycopg.connect(place.target, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"alter database {name} set maintenance_work_mem = '1MB'")
    return place


def built(place: Place, report: Lines) -> None:
    """Load the rows and build their index, or go on with what is loaded."""
    with store_of(place) as store:
        table = store.unfinished()
        if table is None:
            table = store.begin(Layout(DIM, "layout"), MEMORY)
            table.upsert([rows(ROWS, DIM)], fresh=True)
        table.settle(report)


def drop_index(place: Place) -> None:
    import psycopg

    with psycopg.connect(place.target, autocommit=True) as connection:
        connection.execute("drop index notes__next_vector_idx")


def test_what_the_server_says_of_its_memory_is_told_once_with_what_to_type(small: Place) -> None:
    report = Lines()
    built(small, report)
    first, warning, hint = report.said
    assert first == "building the index of vectors, 4,000 rows"
    assert warning.startswith("warning: PostgreSQL says: hnsw graph no longer fits into maintenance_work_mem after ")
    assert warning.endswith("Building will take significantly more time")
    assert hint.startswith("hint: ") and "Ctrl-C" in hint and "the 4,000 rows stay loaded" in hint


def test_both_ways_of_the_hint_give_the_build_memory_enough(small: Place) -> None:
    import psycopg

    report = Lines()
    built(small, report)
    with_flag, statement = report.said[2].split(" with '")[1].split("'")[0], report.said[2].split("`")[1]
    assert with_flag.startswith(("?", "&")) and statement.startswith("alter role postgres set maintenance_work_mem")
    drop_index(small)
    flagged = Lines()
    built(Place(small.target + with_flag), flagged)
    assert flagged.said == ["building the index of vectors, 4,000 rows"]
    drop_index(small)
    with psycopg.connect(small.target, autocommit=True) as connection:
        connection.execute(statement)
    try:
        settled = Lines()
        built(small, settled)
        assert settled.said == ["building the index of vectors, 4,000 rows"]
    finally:
        with psycopg.connect(small.target, autocommit=True) as connection:
            connection.execute("alter role postgres reset maintenance_work_mem")


WAITS = """
create table slow as select generate_series(1, 3) as n;
create function waits(n int) returns int immutable language plpgsql as
$$ begin perform pg_advisory_xact_lock_shared(77); return n; end $$
"""


class LetsGo(Lines):
    """Once it is shown how far the build is, lets it go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.looked: list[str] = []
        self.holder: Any = None

    def looking(self, text: str) -> None:
        if not self.looked:
            self.holder.execute("select pg_advisory_unlock(77)")
        self.looked.append(text)


def test_how_far_a_build_is_comes_from_the_server(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build waits in its first row until it was looked at."""
    import psycopg

    monkeypatch.setattr(building, "LOOK_EVERY_S", 0.01)
    report = LetsGo()
    with (
        psycopg.connect(small.target, autocommit=True) as builder,
        psycopg.connect(small.target, autocommit=True) as report.holder,
    ):
        builder.execute(WAITS)
        report.holder.execute("select pg_advisory_lock(77)")
        builder.execute("set lock_timeout = '60s'")
        with building.reported(
            builder, building.facts(builder, 3, small.target), report,
            another=lambda: psycopg.connect(small.target, autocommit=True), errors=psycopg.Error,
        ):  # fmt: skip
            builder.execute("create index on slow (waits(n))")
    assert report.looked[0].startswith("building the index of vectors: "), report.looked


def test_a_server_that_lets_nobody_look_builds_all_the_same(small: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_STANDING", "select phase from no_such_view")
    monkeypatch.setattr(building, "LOOK_EVERY_S", 0.001)
    report = Lines()
    built(small, report)
    assert report.said[0] == "building the index of vectors, 4,000 rows"


def test_the_memory_that_is_advised_follows_from_what_fitted_in() -> None:
    build = Build(rows=1_000_000, memory_bytes=64 << 20, role="ann", separator="?")
    assert "maintenance_work_mem%3D1600MB" in build.advice("fits into maintenance_work_mem after 50000 tuples")
    assert "maintenance_work_mem = '320MB'" in build.advice("maintenance_work_mem is small")


def test_other_notices_are_told_without_advice() -> None:
    report = Lines()
    notices = building._Notices(Build(1, 1, "ann", "?"), report)
    for _ in range(2):
        notices(SimpleNamespace(message_primary="a notice\n", message_detail=None))
    assert report.said == ["warning: PostgreSQL says: a notice"]


@pytest.mark.parametrize(
    ("phase", "done", "total", "line"),
    [
        ("initializing", 0, 0, "building the index of vectors: initializing"),
        ("building index: loading tuples", 5, 12, "building the index of vectors: loading tuples, 41 %"),
        ("building index", None, None, "building the index of vectors: building index"),
    ],
)
def test_a_look_is_one_line(phase: str, done: int | None, total: int | None, line: str) -> None:
    assert building._standing(phase, done, total) == line
