"""What single stores do that nobody expects, each met here by the store's own client, and by `sync`."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedcli.columns import row_schema
from embedcli.errors import TargetError
from embedcli.stores import lancedb, milvus, pgvector, qdrant
from embedcli.stores.contract import Layout, Memory, Store, Table
from embedcli.stores.open import opened
from embedcli.stores.target import parse_target
from tests.store_readers import difference, read
from tests.stores.conftest import Moment, Place
from tests.workshop import Lines

MakePlace = Callable[[str], Place]
MEMORY = Memory("/srv/notes", "o" * 32, "b" * 32, "layout")


def rows(count: int, dim: int = 4, *, seed: int = 0, **columns: Any) -> pa.Table:
    """Rows as an index has them; `columns`: the same value for all."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table: dict[str, Any] = {}
    for field in list(row_schema(dim))[:-1]:
        value = 1 if pa.types.is_integer(field.type) else None if pa.types.is_timestamp(field.type) else "x"
        table[field.name] = pa.array([columns.get(field.name, value)] * count, field.type)
    table["chunk_id"] = pa.array([f"{number:032x}" for number in range(count)])
    if "meta" not in columns:
        table["meta"] = pa.nulls(count, pa.string())
    table["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
    return pa.table(table, schema=row_schema(dim))


@contextmanager
def store_of(place: Place) -> Iterator[Store]:
    with opened(parse_target(place.target, index=Path("notes"))) as store:
        yield store


def loaded(store: Store, table: pa.Table, dim: int = 4) -> Table:
    """The live table after a load of these rows."""
    begun = store.begin(Layout(dim, "layout"), MEMORY)
    begun.upsert([table], fresh=True)
    begun.settle(Lines())
    begun.remember(Memory("/srv/notes", "o" * 32, "b" * 32, "layout", "b" * 32, finished=True))
    store.swap_in()
    live = store.live()
    assert live is not None
    return live


def path_of(place: Place) -> str:
    return place.target.partition(":")[2]


def test_every_store_takes_a_row_whose_every_nullable_column_is_null(place: Place) -> None:
    nulls = {name: None for name in ("title", "page_start", "page_end", "section", "text", "modified_at", "meta")}
    with store_of(place) as store:
        live = loaded(store, rows(3, **nulls))
        assert live.count() == 3
        live.upsert([rows(3, **nulls)], fresh=False)
        assert live.count() == 3


def test_every_store_takes_any_text(place: Place) -> None:
    """NUL, quotes, what looks like syntax, letters of four bytes, and none at all."""
    text = "\x00 'quoted' \"x\" $1 %s {} \\ \U0001f600 \u202e \ufeff" + "é" * 100
    meta = json.dumps({"a": text, "n": 1.5, "none": None, "list": [1, "x", {"y": text}], "": True})
    with store_of(place) as store:
        live = loaded(store, rows(2, text=text, section=text, path="a'b;--.txt", meta=meta))
        live.upsert([rows(2, text="", meta="[]")], fresh=False)
        live.delete([f"{0:032x}", "f" * 32])
        assert live.count() == 1


def test_every_store_takes_numbers_with_any_count_of_digits(place: Place) -> None:
    """Milvus has no whole numbers of more than 64 bits: what has more is text there, with all of its digits."""
    account = 98_765_432_109_876_543_210_987
    meta = {"account": account, "least": -(1 << 63), "all": [-account, {"n": account, "small": 1, "yes": True}]}
    with store_of(place) as store:
        loaded(store, rows(2, meta=json.dumps(meta)))
    read = {"chroma": chroma_rows, "qdrant": qdrant_rows, "milvus": milvus_rows, "lancedb": lance_rows}
    read |= {"sqlite": sqlite_rows, "postgresql": postgres_rows}
    held = read[place.kind](path_of(place))[0]["meta"]
    text = {
        "account": f"{account}",
        "least": -(1 << 63),
        "all": [f"-{account}", {"n": f"{account}", "small": 1, "yes": True}],
    }
    assert (json.loads(held) if isinstance(held, str) else held) == (text if place.kind == "milvus" else meta)


def test_ids_come_back_as_they_were_given(place: Place) -> None:
    """Qdrant gives hex ids back with dashes."""
    with store_of(place) as store:
        live = loaded(store, rows(5))
        (versions,) = [pa.concat_tables(list(live.versions()))]
        assert sorted(versions.column("chunk_id").to_pylist()) == [f"{number:032x}" for number in range(5)]
        assert set(versions.column("changed_in").to_pylist()) == {1}


def test_a_changed_row_keeps_nothing_of_its_old_columns(place: Place) -> None:
    """Chroma merges metadata: what is gone would stay."""
    with store_of(place) as store:
        live = loaded(store, rows(2, section="old", meta='{"author": "Ann"}'))
        live.upsert([rows(2, section=None, meta=None)], fresh=False)
    read = {"chroma": chroma_rows, "qdrant": qdrant_rows, "milvus": milvus_rows, "lancedb": lance_rows}
    read |= {"sqlite": sqlite_rows, "postgresql": postgres_rows}
    for row in read[place.kind](path_of(place)):
        assert (row.get("section"), row.get("meta"), row.get("meta.author")) == (None, None, None)


def chroma_rows(path: str) -> list[dict[str, Any]]:
    import chromadb

    client = chromadb.PersistentClient(path, settings=chromadb.config.Settings(anonymized_telemetry=False))
    found: list[dict[str, Any]] = client.get_collection("notes", embedding_function=None).get()["metadatas"]
    client.close()
    return found


def qdrant_rows(path: str) -> list[dict[str, Any]]:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=path)
    points, _ = client.scroll("notes")
    client.close()
    return [point.payload or {} for point in points]


def milvus_rows(path: str) -> list[dict[str, Any]]:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(path)
    client.load_collection("notes")
    found = [dict(row) for row in client.query("notes", filter="", output_fields=["*"], limit=100)]
    client.close()
    server_manager_instance.release_server(path)
    return found


def lance_rows(path: str) -> list[dict[str, Any]]:
    import lancedb as client

    found: list[dict[str, Any]] = client.connect(path).open_table("notes").to_arrow().to_pylist()
    return found


def sqlite_rows(path: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("select * from notes")]
    connection.close()
    return found


def postgres_rows(rest: str) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(f"postgresql:{rest}") as connection:
        return connection.cursor(row_factory=dict_row).execute("select * from notes").fetchall()


def test_meta_can_be_filtered_by_in_each_store(place: Place) -> None:
    with store_of(place) as store:
        loaded(store, rows(2, meta='{"author": "Ann", "tags": ["x"]}'))
    path = path_of(place)
    if place.kind == "chroma":
        assert chroma_rows(path)[0]["meta.author"] == "Ann" and json.loads(chroma_rows(path)[0]["meta"])
    elif place.kind in ("lancedb", "sqlite"):
        found = lance_rows(path) if place.kind == "lancedb" else sqlite_rows(path)
        assert json.loads(found[0]["meta"])["author"] == "Ann"
    else:
        read = {"qdrant": qdrant_rows, "milvus": milvus_rows, "postgresql": postgres_rows}[place.kind]
        assert read(path)[0]["meta"] == {"author": "Ann", "tags": ["x"]}


@pytest.mark.parametrize(("version", "is_taken"), [("v2.3.5-lite", False), ("2.4.15", False), ("v2.5.0", True)])
def test_a_milvus_server_without_columns_without_values_is_refused_before_a_table_is_made(
    version: str, is_taken: bool
) -> None:
    """Milvus 2.3.5 took the table, and refused the first row that had no `meta`."""

    class Made(Exception):
        pass

    class Server:
        def get_server_version(self) -> str:
            return version

        def prepare_index_params(self) -> None:
            raise Made(version)

    client: Any = Server()
    store = milvus.MilvusStore(parse_target("milvus:http://127.0.0.1:19530", index=Path("notes")), client)
    with pytest.raises(Made if is_taken else TargetError, match=re.escape(version)):
        store._make("_notes_a", Layout(4, "layout"), MEMORY)


# ---- somebody else's


def make_foreign(place: Place) -> None:
    """A table `notes` of somebody else, made by the store's own client."""
    path = path_of(place)
    if place.kind == "sqlite":
        connection = sqlite3.connect(path)
        connection.execute("create table notes (x)")
        connection.commit()
        connection.close()
    elif place.kind == "lancedb":
        import lancedb as client

        client.connect(path).create_table("notes", pa.table({"x": [1]}))
    elif place.kind == "qdrant":
        from qdrant_client import QdrantClient, models

        opened_client = QdrantClient(path=path)
        opened_client.create_collection("notes", models.VectorParams(size=3, distance=models.Distance.DOT))
        opened_client.close()
    elif place.kind == "postgresql":
        import psycopg

        with psycopg.connect(f"postgresql:{path}") as connection:
            connection.execute("create table notes (x int)")
    elif place.kind == "chroma":
        import chromadb

        client = chromadb.PersistentClient(path, settings=chromadb.config.Settings(anonymized_telemetry=False))
        client.create_collection("notes", embedding_function=None)
        client.close()
    else:
        from milvus_lite.server_manager import server_manager_instance
        from pymilvus import MilvusClient

        client = MilvusClient(path)
        client.create_collection("notes", dimension=3)
        client.close()
        server_manager_instance.release_server(path)


def test_a_table_of_somebody_else_is_refused_even_with_replace(place: Place, moments: dict[str, Moment]) -> None:
    make_foreign(place)
    for replace in (False, True):
        with pytest.raises(TargetError, match="has a `notes` that embedcli did not make") as error:
            place.sync(moments["first"], replace=replace)
        assert "--into" in error.value.hint
    with opened(parse_target(place.target, index=Path("notes"), into="notes_two")) as store:
        assert store.live() is None


def test_a_table_of_somebody_else_in_the_place_of_a_dropped_one_of_ours_is_refused(
    place: Place, moments: dict[str, Moment]
) -> None:
    with store_of(place) as store:
        loaded(store, rows(3))
    drop_ours(place)
    make_foreign(place)
    with pytest.raises(TargetError, match="has a `notes` that embedcli did not make"):
        place.sync(moments["first"], replace=True)


@pytest.mark.parametrize("name", ["NOTES", "notes_vectors", "Notes_Vectors"])
def test_a_table_of_sqlite_that_would_be_dropped_for_its_name_is_refused(
    make_place: MakePlace, moments: dict[str, Moment], name: str
) -> None:
    """SQLite's names ignore case, and a load drops two names."""
    place = make_place("sqlite")
    connection = sqlite3.connect(path_of(place))
    connection.execute(f"create table {name} (x)")
    connection.execute(f"insert into {name} values ('dear')")
    connection.commit()
    for replace in (False, True):
        with pytest.raises(TargetError, match="has a `notes` that embedcli did not make"):
            place.sync(moments["first"], replace=replace)
    assert connection.execute(f"select * from {name}").fetchall() == [("dear",)]
    connection.close()


def test_the_vectors_of_a_dropped_table_do_not_make_those_of_somebody_else_ours(
    make_place: MakePlace, moments: dict[str, Moment]
) -> None:
    place = make_place("sqlite")
    with opened(parse_target(place.target, index=Path("notes"), into="notes_vectors")) as other:
        loaded(other, rows(3))
    with opened(parse_target(place.target, index=Path("notes"))) as store, pytest.raises(TargetError, match="not make"):
        store.begin(Layout(4, "layout"), MEMORY)
    with opened(parse_target(place.target, index=Path("notes"), into="notes_vectors")) as other:
        live = other.live()
        assert live is not None and live.count() == 3


def test_a_milvus_collection_of_another_table_or_behind_an_alias_is_never_the_one_to_load_into(
    make_place: MakePlace, moments: dict[str, Moment]
) -> None:
    place = make_place("milvus")
    for name in ("notes_a", "notes_b"):
        with opened(parse_target(place.target, index=Path("notes"), into=name)) as other:
            loaded(other, rows(3))
    assert place.sync(moments["first"]).did == "loaded"
    milvus_client(path_of(place), lambda client: client.create_alias("_notes_a_a", "_notes_b"))
    with pytest.raises(TargetError, match="embedcli did not make"):
        place.sync(moments["rebuilt"])
    for name in ("notes_a", "notes_b"):
        with opened(parse_target(place.target, index=Path("notes"), into=name)) as other:
            live = other.live()
            assert live is not None and live.count() == 3


@pytest.mark.parametrize("left", ["schema.json.tmp", "manifest.json"])
def test_a_milvus_collection_that_was_killed_while_it_was_made_or_dropped_is_made_again(
    make_place: MakePlace, moments: dict[str, Moment], left: str
) -> None:
    """Milvus Lite makes the folder before the schema in it, and may remove the schema before the rest of the folder."""
    place = make_place("milvus")
    for name, moment in (("_notes_a", "first"), ("_notes_b", "rebuilt")):
        torn = Path(path_of(place)) / "collections" / name
        torn.mkdir(parents=True)
        (torn / left).write_text("{}")
        assert place.sync(moments[moment]).did == "loaded"
        assert difference(read(place.target), moments[moment].rows) == []


def milvus_client(path: str, call: Callable[[Any], object]) -> None:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    client = MilvusClient(path)
    call(client)
    client.close()
    server_manager_instance.release_server(path)


def drop_ours(place: Place) -> None:
    """As a user of the store would drop it."""
    path = path_of(place)
    if place.kind == "sqlite":
        connection = sqlite3.connect(path)
        connection.execute("drop table notes")
        connection.commit()
        connection.close()
    elif place.kind == "lancedb":
        import lancedb as client

        client.connect(path).drop_table("notes")
    elif place.kind == "qdrant":
        from qdrant_client import QdrantClient

        opened_client = QdrantClient(path=path)
        opened_client.delete_collection("notes.a")
        opened_client.close()
    elif place.kind == "postgresql":
        import psycopg

        with psycopg.connect(f"postgresql:{path}") as connection:
            connection.execute("drop table notes")
    elif place.kind == "chroma":
        import chromadb

        client = chromadb.PersistentClient(path, settings=chromadb.config.Settings(anonymized_telemetry=False))
        client.delete_collection("notes")
        client.close()
    else:
        from milvus_lite.server_manager import server_manager_instance
        from pymilvus import MilvusClient

        client = MilvusClient(path)
        client.drop_alias("notes")
        client.drop_collection("_notes_a")
        client.close()
        server_manager_instance.release_server(path)


@pytest.mark.parametrize(
    "target",
    [
        "postgresql://ann:s3cret@127.0.0.1:9/docs",
        "qdrant:http://:s3cret@127.0.0.1:9",
        "milvus:http://root:s3cret@127.0.0.1:9",
        "chroma:http://:s3cret@127.0.0.1:9",
    ],
)
def test_a_server_that_cannot_be_reached_is_exit_16_without_secrets(
    target: str, moments: dict[str, Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus, "_TIMEOUT_S", 1)
    with pytest.raises(TargetError, match=r"127\.0\.0\.1:9") as error:
        Place(target).sync(moments["first"])
    assert error.value.exit_code == 16 and "s3cret" not in f"{error.value}{error.value.hint}{error.value.__cause__}"


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, moments: dict[str, Moment]) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(b"no database, but something dear to somebody" * 100)
    before = file.read_bytes()
    with pytest.raises(TargetError, match="x.db"):
        Place(f"sqlite:{file}").sync(moments["first"])
    assert file.read_bytes() == before


def test_a_password_that_postgresql_refuses_is_not_shown(make_place: MakePlace, moments: dict[str, Moment]) -> None:
    place = make_place("postgresql")
    wrong = place.target.replace("postgres:@", "nobody:s3cret@")
    with pytest.raises(TargetError) as error:
        Place(wrong).sync(moments["first"])
    assert "nobody" in str(error.value) and "s3cret" not in f"{error.value}{error.value.__cause__}"


# ---- Chroma


def test_a_dry_run_does_not_finish_a_swap_of_chroma_that_was_killed(
    make_place: MakePlace, moments: dict[str, Moment]
) -> None:
    import chromadb

    place = make_place("chroma")
    place.sync(moments["first"])
    settings = chromadb.config.Settings(anonymized_telemetry=False)

    def names() -> list[str]:
        client = chromadb.PersistentClient(path_of(place), settings=settings)
        found = [one.name for one in client.list_collections()]
        client.close()
        return found

    client = chromadb.PersistentClient(path_of(place), settings=settings)
    client.get_collection("notes", embedding_function=None).modify(name="notes-next")
    client.close()
    assert place.sync(moments["first"], dry_run=True).did == "unchanged" and names() == ["notes-next"]
    assert place.sync(moments["first"]).did == "unchanged" and names() == ["notes"]


# ---- pgvector


@pytest.mark.parametrize(
    ("dim", "indexed"), [(2000, "vector_cosine_ops"), (2001, "halfvec(2001)"), (4000, "halfvec(4000)"), (4001, "")]
)
def test_the_index_fits_the_dimensions(make_place: MakePlace, dim: int, indexed: str) -> None:
    import psycopg

    place = make_place("postgresql")
    with store_of(place) as store:
        live = loaded(store, rows(3, dim), dim)
        assert live.count() == 3
    with psycopg.connect(place.target) as connection:
        query = "select indexdef from pg_indexes where tablename = 'notes' and indexdef like '%hnsw%'"
        found = [definition for (definition,) in connection.execute(query)]
    assert (indexed in found[0]) if indexed else not found
    assert pgvector._indexed(dim).endswith("cosine_ops") == bool(indexed)


def test_rows_are_counted_without_reading_the_table(make_place: MakePlace) -> None:
    """Every sync counts them. Until a vacuum has passed, PostgreSQL reads each row to know who may see it."""
    import psycopg

    place = make_place("postgresql")
    with store_of(place) as store:
        loaded(store, rows(3000, 8, text="x" * 1500), 8)
    with psycopg.connect(place.target) as connection:
        told = connection.execute("explain (analyze, costs off) select count(*) from notes").fetchall()
    plan = "\n".join(line for (line,) in told)
    assert "Index Only Scan" in plan and "Heap Fetches: 0" in plan, plan


def test_a_filter_finds_its_rows_with_an_iterative_scan(make_place: MakePlace) -> None:
    """Without it the HNSW index gives the nearest 40, and the filter takes what is left of them."""
    import psycopg

    place = make_place("postgresql")
    common, rare = rows(3000, 8, section="common"), rows(3000, 8, seed=1, section="rare")
    table = pa.concat_tables([common.slice(0, 2960), rare.slice(2960, 40)])
    with store_of(place) as store:
        loaded(store, table, 8)
    query = "select count(*) from (select 1 from notes where section = 'rare' order by vector <=> %s limit 20) found"
    vector = str(common.column("vector")[0].as_py())
    counts = []
    with psycopg.connect(place.target) as connection:
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_sort = off")
        for how in ("off", "strict_order"):
            connection.execute(f"set hnsw.iterative_scan = {how}")
            counts.append(connection.execute(query, (vector,)).fetchone())
    assert counts[0] is not None and counts[0][0] < 20 and counts[1] == (20,)


def test_readers_of_postgresql_see_the_old_generation_until_all_of_the_new_one_is_there(
    make_place: MakePlace, moments: dict[str, Moment]
) -> None:
    import psycopg

    place = make_place("postgresql")
    place.sync(moments["first"])
    with store_of(place) as store, psycopg.connect(place.target, autocommit=True) as reader:
        live = store.live()
        assert live is not None
        count = "select count(*) from notes"
        with live.atomic():
            live.delete(list(moments["first"].rows))
            assert live.count() == 0
            assert reader.execute(count).fetchone() == (len(moments["first"].rows),)
        assert reader.execute(count).fetchone() == (0,)


def test_a_view_on_the_table_keeps_it_from_being_replaced(make_place: MakePlace, moments: dict[str, Moment]) -> None:
    import psycopg

    place = make_place("postgresql")
    place.sync(moments["first"])
    with psycopg.connect(place.target) as connection:
        connection.execute("create view seen as select path from notes")
    with pytest.raises(TargetError, match="depend"):
        place.sync(moments["rebuilt"])
    with psycopg.connect(place.target) as connection:
        assert connection.execute("select count(*) from seen").fetchone() == (len(moments["first"].rows),)
        connection.execute("drop view seen")
    assert place.sync(moments["rebuilt"]).did == "loaded"


# ---- LanceDB


def test_changed_rows_are_in_the_index_again_after_a_sync(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """merge_insert takes every row it is given out of the index; distances with and without index are 1 - cosine."""
    import lancedb as client

    monkeypatch.setattr(lancedb, "INDEX_FROM_ROWS", 500)
    place = make_place("lancedb")
    with store_of(place) as store:
        live = loaded(store, rows(600, 8), 8)
        table = client.connect(path_of(place)).open_table("notes")
        (index,) = table.list_indices()
        assert table.index_stats(index.name).num_unindexed_rows == 0
        live.upsert([rows(600, 8).slice(0, 50)], fresh=False)
        table.checkout_latest()
        assert table.index_stats(index.name).num_unindexed_rows == 50
        live.settle(Lines())
        table.checkout_latest()
        assert table.index_stats(index.name).num_unindexed_rows == 0
        live.delete([f"{599:032x}"])
        table.checkout_latest()
        assert lancedb._load_of(table) == live._load != ""  # type: ignore[attr-defined]  # Lance keeps it
    vectors = np.stack(table.to_arrow().column("vector").to_numpy())
    found = table.search(vectors[0]).distance_type("cosine").nprobes(1000).limit(600).to_list()
    exact = sorted(1 - vectors @ vectors[0])
    assert np.allclose([row["_distance"] for row in found], exact[: len(found)], atol=1e-5) and len(found) > 500


# ---- Milvus, Qdrant


def test_a_text_longer_than_milvus_takes_is_cut_between_two_letters() -> None:
    short, long = "é" * 16_000, "é" * 40_000
    assert milvus._short(short) == short
    assert milvus._short(long) == "é" * 32_767 and len(milvus._short(long).encode()) <= milvus.MOST_BYTES
    assert milvus._short("x" * 65_535) == "x" * 65_535


def test_a_row_with_a_long_text_arrives_in_milvus(make_place: MakePlace) -> None:
    place = make_place("milvus")
    with store_of(place) as store:
        loaded(store, rows(1, text="語" * 70_000))
    assert milvus_rows(path_of(place))[0]["text"] == "語" * 21_845


def test_a_qdrant_point_is_found_by_the_chunk_id(make_place: MakePlace) -> None:
    from qdrant_client import QdrantClient

    place = make_place("qdrant")
    with store_of(place) as store:
        loaded(store, rows(3))
    client = QdrantClient(path=path_of(place))
    (point,) = client.retrieve("notes", [str(uuid.UUID(f"{2:032x}"))])
    client.close()
    assert point.payload is not None and point.payload["chunk_id"] == f"{2:032x}"


def test_qdrant_in_a_folder_is_said_to_be_slow_with_many_rows(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qdrant_client.local.qdrant_local import QdrantLocal

    assert qdrant.LOCAL_ROWS == QdrantLocal.LARGE_DATA_THRESHOLD
    monkeypatch.setattr(qdrant, "LOCAL_ROWS", 2)
    with store_of(make_place("qdrant")) as store:
        table = store.begin(Layout(4, "layout"), MEMORY)
        for count, said in ((2, 0), (3, 1)):
            report = Lines()
            table.upsert([rows(count)], fresh=False)
            table.settle(report)
            assert len(report.said) == said


def test_a_qdrant_server_that_keeps_no_metadata_is_told_to_be_upgraded(
    make_place: MakePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers before 1.16 take the metadata of a collection and forget it."""
    from qdrant_client import QdrantClient

    made = QdrantClient.create_collection
    monkeypatch.setattr(
        QdrantClient,
        "create_collection",
        lambda client, name, vectors_config, metadata: made(client, name, vectors_config=vectors_config),
    )
    with store_of(make_place("qdrant")) as store, pytest.raises(TargetError, match="keeps no metadata") as error:
        store.begin(Layout(4, "layout"), MEMORY)
    assert "1.16" in error.value.hint


def test_a_user_who_may_not_make_the_extension_is_told_who_can(make_place: MakePlace) -> None:
    import psycopg

    place = make_place("postgresql")
    with psycopg.connect(place.target, autocommit=True) as connection:
        connection.execute("drop role if exists plain")
        connection.execute("create role plain login")
        connection.execute("grant create on schema public to plain")
        connection.execute("alter role plain set role none")
    plain_place = Place(place.target.replace("postgres:@", "plain@"))
    with store_of(plain_place) as store, pytest.raises(TargetError, match="has no extension `vector`") as error:
        store.begin(Layout(4, "layout"), MEMORY)
    assert "create extension vector" in error.value.hint
    with psycopg.connect(place.target, autocommit=True) as connection:
        connection.execute("create extension vector")
    with store_of(plain_place) as store:
        assert loaded(store, rows(2)).count() == 2


def test_two_hosts_do_not_write_to_one_table_of_postgresql_at_once(
    make_place: MakePlace, moments: dict[str, Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector, "_LOCK_WAIT_S", 1)
    place = make_place("postgresql")
    with store_of(place), pytest.raises(TargetError, match="another sync is writing `notes`"):
        place.sync(moments["first"])
    assert place.sync(moments["first"]).did == "loaded"
