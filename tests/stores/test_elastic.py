"""What `sync` sends to Elasticsearch and OpenSearch by their own clients: the bytes, as no server was to be had.

A recorder on the loopback keeps what `_bulk`, `_aliases` and `_mapping` were sent, by their documented rules.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from embedcli.errors import TargetError
from embedcli.stores import elastic
from tests.fake_elastic import FakeElastic
from tests.store_readers import Rows, _row, difference
from tests.stores.conftest import Moment, Place

pytest.importorskip("elasticsearch")
pytest.importorskip("opensearchpy")

Moments = dict[str, Moment]


@pytest.fixture(params=["elasticsearch", "opensearch"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(kind: str) -> Iterator[FakeElastic]:
    with FakeElastic(product=kind == "elasticsearch") as server:
        yield server


@pytest.fixture
def place(kind: str, server: FakeElastic) -> Place:
    return Place(f"{kind}:{server.url}")


def held(server: FakeElastic, alias: str = "notes") -> Rows:
    documents = server.indices[server.aliases[alias]].documents
    return {chunk_id: _row(row, row["vector"], row["text"]) for chunk_id, row in documents.items()}


def test_every_moment_of_an_index_is_followed_exactly(place: Place, server: FakeElastic, moments: Moments) -> None:
    did = []
    for moment in moments.values():
        did.append(place.sync(moment).did)
        assert difference(held(server), moment.rows) == []
    assert did == ["loaded", "followed", "followed", "followed", "followed", "loaded"]
    assert set(server.indices) == {"notes-b"}, "what the new one replaced is dropped"
    assert place.sync(moments["rebuilt"]).did == "unchanged"


def test_bulk_lines_are_actions_by_chunk_id_with_whole_documents(
    place: Place, server: FakeElastic, moments: Moments
) -> None:
    place.sync(moments["first"])
    (bulk,) = server.bulks()
    assert bulk.path.startswith("/notes-a/_bulk") and "json" in bulk.headers["content-type"]
    lines = [json.loads(line) for line in bulk.body.splitlines()]
    actions, documents = lines[::2], lines[1::2]
    assert bulk.body.endswith(b"\n")
    assert [action["index"]["_id"] for action in actions] == [document["chunk_id"] for document in documents]
    columns = set(server.indices["notes-a"].mappings["properties"])
    assert all(set(document) == columns and len(document["vector"]) == 16 for document in documents)


def test_only_changed_rows_are_sent_and_gone_ones_deleted(place: Place, server: FakeElastic, moments: Moments) -> None:
    place.sync(moments["first"])
    server.requests.clear()
    synced = place.sync(moments["edited"])
    lines = [json.loads(line) for bulk in server.bulks() for line in bulk.body.splitlines()]
    before, after = moments["first"].rows, moments["edited"].rows
    assert [line["delete"]["_id"] for line in lines if "delete" in line] != []
    assert {line["delete"]["_id"] for line in lines if "delete" in line} == before.keys() - after.keys()
    assert {line["index"]["_id"] for line in lines if "index" in line} == {i for i, row in after.items() if row[0] == 2}
    assert synced.upserts + synced.deletes == sum(1 for line in lines if "delete" in line or "index" in line)


def test_vectors_are_searched_by_cosine(place: Place, server: FakeElastic, moments: Moments, kind: str) -> None:
    place.sync(moments["first"])
    index = server.indices["notes-a"]
    vector = index.mappings["properties"]["vector"]
    if kind == "elasticsearch":
        assert vector == {"type": "dense_vector", "dims": 16, "index": True, "similarity": "cosine"}
    else:
        assert (vector["type"], vector["dimension"], vector["method"]["space_type"]) == (
            "knn_vector",
            16,
            "cosinesimil",
        )
        assert index.settings == {"index": {"knn": True}}
    assert index.mappings["dynamic"] == "strict"


def test_what_it_may_write_is_remembered_before_the_data_and_what_it_holds_after(
    place: Place, server: FakeElastic, moments: Moments
) -> None:
    place.sync(moments["first"])
    server.requests.clear()
    place.sync(moments["edited"])
    names = [request.path.partition("?")[0].rpartition("/")[2] for request in server.requests]
    puts = [
        number
        for number, request in enumerate(server.requests)
        if request.method == "PUT" and names[number] == "_mapping"
    ]
    bulks = [number for number, name in enumerate(names) if name == "_bulk"]
    assert len(puts) == 2 and bulks and puts[0] < min(bulks) and max(bulks) < puts[1]


def test_a_load_that_was_interrupted_goes_on(place: Place, server: FakeElastic, moments: Moments) -> None:
    refused = sorted(moments["first"].rows)[-1]
    server.refuse_ids = {refused}
    with pytest.raises(TargetError, match=f"row `{refused}` was refused"):
        place.sync(moments["first"])
    assert not server.aliases, "nobody sees the half of it"
    server.refuse_ids = set()
    server.requests.clear()
    place.sync(moments["first"])
    sent = [json.loads(line) for bulk in server.bulks() for line in bulk.body.splitlines()[::2]]
    assert [line["index"]["_id"] for line in sent] == [refused]
    assert difference(held(server), moments["first"].rows) == []


def test_an_index_or_alias_of_somebody_else_is_left_alone(place: Place, server: FakeElastic, moments: Moments) -> None:
    server.handle("PUT", "/notes", json.dumps({"mappings": {}, "settings": {}}).encode())
    with pytest.raises(TargetError, match="embedcli did not make"):
        place.sync(moments["first"])
    server.indices["other"] = server.indices.pop("notes")
    server.aliases["notes"] = "other"
    with pytest.raises(TargetError, match="embedcli did not make"):
        place.sync(moments["first"], replace=True)
    assert list(server.indices) == ["other"] and not server.indices["other"].documents


def test_credentials_of_the_url_are_sent_and_never_shown(
    place: Place, server: FakeElastic, moments: Moments, kind: str
) -> None:
    secret = Place(place.target.replace("http://", "http://ann:s3cr%40t@"))
    secret.sync(moments["first"])
    expected = base64.b64encode(b"ann:s3cr@t").decode()
    assert {request.headers["authorization"] for request in server.requests} == {f"Basic {expected}"}
    server.refuse = 401
    with pytest.raises(TargetError) as error:
        secret.sync(moments["edited"])
    told = f"{error.value} {error.value.hint} {error.value.__cause__}"
    assert "s3cr" not in told and "ann" not in told and server.url in told


def test_the_api_key_of_the_environment_is_sent(moments: Moments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTIC_API_KEY", "a2V5")
    with FakeElastic() as server:
        Place(f"elasticsearch:{server.url}").sync(moments["first"])
    assert {request.headers["authorization"] for request in server.requests} == {"ApiKey a2V5"}


def test_a_server_that_is_not_there_is_named(kind: str, moments: Moments, server: FakeElastic) -> None:
    with pytest.raises(TargetError, match=f"`{kind}:http://127.0.0.1:9`"):
        Place(f"{kind}:http://127.0.0.1:9").sync(moments["first"])


def test_long_values_are_kept_though_not_as_keywords(kind: str) -> None:
    from embedcli.stores.contract import Layout

    properties = elastic._mappings(Layout(16, ""), kind)["properties"]
    assert all(field.get("ignore_above") for field in properties.values() if field["type"] == "keyword")
