"""The target as it is typed: what it means, and what is never printed of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedcli.errors import TargetError, UsageError
from embedcli.stores.open import STORES, opened
from embedcli.stores.target import KINDS, parse_target, table_name, target_error, target_errors
from tests.help_texts import text_of

INDEX = Path("/srv/notes")


@pytest.mark.parametrize(
    ("typed", "kind", "shown"),
    [
        ("postgresql://ann:s3cret@db:5432/docs?sslpassword=k3y", "postgresql", "postgresql://db:5432/docs"),
        ("postgres://db/docs", "postgresql", "postgresql://db/docs"),
        ("postgresql:///docs?host=/run/pg", "postgresql", "postgresql:///docs"),
        ("qdrant:https://:k3y@host:6333", "qdrant", "qdrant:https://host:6333"),
        ("milvus:http://root:s3cret@host:19530/db", "milvus", "milvus:http://host:19530/db"),
        ("chroma:http://host:8000", "chroma", "chroma:http://host:8000"),
        ("lancedb:s3://bucket/folder?secret=k3y", "lancedb", "lancedb:s3://bucket/folder"),
        ("elasticsearch:https://ann:s3cret@host:9200", "elasticsearch", "elasticsearch:https://host:9200"),
        ("opensearch:https://host", "opensearch", "opensearch:https://host"),
        ("sqlite:/data/x.db", "sqlite", "sqlite:/data/x.db"),
        ("qdrant:/data/with:colon", "qdrant", "qdrant:/data/with:colon"),
    ],
)
def test_a_target_is_shown_without_its_secrets(typed: str, kind: str, shown: str) -> None:
    target = parse_target(typed, index=INDEX)
    assert (target.kind, target.shown, target.table) == (kind, shown, "notes")
    assert "s3cret" not in target.shown and "k3y" not in target.shown


def test_every_kind_has_a_store_and_an_example() -> None:
    assert KINDS.keys() == STORES.keys()


def test_the_help_of_sync_shows_how_each_kind_is_typed() -> None:
    for kind, forms in KINDS.items():
        (line,) = re.findall(rf"^  {kind}:.*", text_of("sync"), re.MULTILINE)
        assert line.split()[:-1] == forms.split(" or ")


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("redis:x", "`redis:` is not a target"),
        ("s3cret", "is not a target"),
        ("qdrant:", "is not a target"),
        ("elasticsearch:./folder", "is a server"),
        ("sqlite:http://host/x", "is a file"),
        ("milvus:./folder", "has to end in `.db`"),
        ("qdrant:http://", "the URL of the `qdrant` target is not valid"),
        ("qdrant:http://ann:s3cret@host:notaport", "the URL of the `qdrant` target is not valid"),
        ("postgresql://ann:s3cret@[::1/docs", "the URL of the `postgresql` target is not valid"),
    ],
)
def test_what_is_no_target_is_exit_2_and_says_how_to_type_one(typed: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as error:
        parse_target(typed, index=INDEX)
    assert "http" in error.value.hint or "postgresql://" in error.value.hint or "sqlite:" in error.value.hint
    assert "s3cret" not in f"{error.value.hint}" and (typed == "s3cret" or "s3cret" not in str(error.value))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/srv/My docs (2)", "my_docs_2"),
        ("/srv/index", "embedcli_index"),
        ("/srv/a", "embedcli_a"),
        ("/srv/2026", "embedcli_2026"),
        ("/srv/документы", "embedcli"),
        ("/srv/" + "x" * 90, "x" * 48),
        ("/srv/embedcli-index", "embedcli_index"),
    ],
)
def test_the_table_is_named_after_the_index_as_every_store_takes_it(folder: str, name: str) -> None:
    assert table_name(Path(folder)) == name
    assert parse_target("sqlite:x.db", index=Path(folder)).table == name


@pytest.mark.parametrize("name", ["ab", "1abc", "a-b-c", 'x"; drop table y', "", "a" * 49, "über"])
def test_a_name_that_some_store_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a table in every store"):
        parse_target("sqlite:x.db", index=INDEX, into=name)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("sqlite:x.db", "sqlite_notes"),
        ("sqlite:x.db", "SQLite_notes"),
        ("sqlite:x.db", "Embedcli_Sync"),
        ("lancedb:x", "embedcli_sync"),
        ("chroma:x", "notes_"),
        ("postgresql:///x", "notes__next"),
    ],
)
def test_a_name_that_a_store_keeps_for_itself_is_refused_there_and_not_given(typed: str, name: str) -> None:
    """SQLite has no tables `sqlite_...`, a collection of Chroma ends in a letter or digit; the others are of `sync`."""
    with pytest.raises(UsageError, match=f"`--into {name}` is a name that `.*:` keeps for itself"):
        parse_target(typed, index=INDEX, into=name)
    assert parse_target("qdrant:x", index=INDEX, into=name).table == name


@pytest.mark.parametrize(
    ("folder", "typed", "name"),
    [
        ("/srv/sqlite-docs", "sqlite:x.db", "embedcli_sqlite_docs"),
        ("/srv/sqlite-docs", "qdrant:x", "sqlite_docs"),
        ("/srv/embedcli-sync", "lancedb:x", "embedcli_embedcli_sync"),
        ("/srv/embedcli-sync", "sqlite:x.db", "embedcli_embedcli_sync"),
    ],
)
def test_a_folder_with_the_name_of_what_a_store_keeps_has_a_table_all_the_same(
    folder: str, typed: str, name: str
) -> None:
    assert parse_target(typed, index=Path(folder)).table == name


def test_errors_of_clients_lose_every_secret_and_line_break() -> None:
    target = parse_target("milvus:http://ann:s3c%40ret@host:1/db?token=k3y", index=INDEX)
    said = "cannot reach http://ann:s3c%40ret@host:1/db?token=k3y:\n password s3c@ret of\t s3c%40ret, k3y"
    error = target_error(target, ValueError(said))
    for secret in ("s3c@ret", "s3c%40ret", "k3y", "\n", "\t"):
        assert secret not in str(error) + error.hint
    assert "milvus:http://host:1/db" in str(error)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("qdrant", "QDRANT_API_KEY"),
        ("milvus", "MILVUS_TOKEN"),
        ("chroma", "CHROMA_API_KEY"),
        ("elasticsearch", "ELASTIC_API_KEY"),
    ],
)
def test_a_key_in_the_environment_loses_its_newline_and_is_not_shown(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret that was made with `echo` ends with one; the clients show a header that they do not take."""
    target = parse_target(f"{kind}:http://host:1", index=INDEX)
    assert target.key is None
    monkeypatch.setenv(name, "s3cret\n")
    assert target.key == "s3cret"
    monkeypatch.setenv(name, "s3\ncrét")
    for sent in ("s3\ncrét", "ApiKey s3\ncrét"):
        error = target_error(target, ValueError(f"Illegal header value {sent.encode()!r}"))
        assert "s3" not in str(error), str(error)


def test_the_cause_is_kept_for_debug_only_where_it_shows_no_secret() -> None:
    target = parse_target("qdrant:http://:s3cret@host", index=INDEX)
    with pytest.raises(TargetError) as bare, target_errors(target, ValueError):
        raise ValueError("the key s3cret is refused")
    with pytest.raises(TargetError) as whole, target_errors(target, ValueError):
        raise ValueError("refused")
    assert bare.value.__cause__ is None and str(whole.value.__cause__) == "refused"


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_client_is_exit_16_and_says_what_to_install(kind: str, tmp_path: Path) -> None:
    """In a process of its own, in which no client can be imported."""
    typed = {
        "postgresql": "postgresql://127.0.0.1:9/x",
        "elasticsearch": "elasticsearch:http://127.0.0.1:9",
        "opensearch": "opensearch:http://127.0.0.1:9",
    }
    code = (
        "import sys\n"
        "for name in ('psycopg', 'pgvector', 'qdrant_client', 'pymilvus', 'milvus_lite', 'chromadb', 'lancedb',"
        " 'elasticsearch', 'opensearchpy', 'apsw', 'sqlite_vec'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from embedcli.errors import TargetError\n"
        "from embedcli.stores.open import opened\n"
        "from embedcli.stores.target import parse_target\n"
        "try:\n"
        f"    with opened(parse_target({typed.get(kind, f'{kind}:{tmp_path}/x.db')!r}, index=Path('notes'))): pass\n"
        "except TargetError as error: print(error.exit_code, error, error.hint)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("16 ") and f"pip install 'embedcli[{STORES[kind][1]}]'" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_extras_that_are_named_exist() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {extra for _, extra in STORES.values()} <= project["optional-dependencies"].keys()


def test_a_folder_that_does_not_exist_is_named_before_anything_is_made(tmp_path: Path) -> None:
    target = parse_target(f"sqlite:{tmp_path}/nowhere/x.db", index=INDEX)
    with pytest.raises(TargetError, match="is not a folder"), opened(target):
        pass
