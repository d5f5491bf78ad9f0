"""A server with an index searches it, follows its generations, and shows a page."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.serving.client import Server, error, serving
from tests.workshop import Workshop, words

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
RED = "The light blinks red: the battery is empty."
GREEN = "The light is green: everything works."
HOSTILE = '<script>alert(1)</script> & "quoted" battery'


@pytest.fixture(scope="module")
def lamp(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("lamp"))
    shop.write("manual/red.md", f"# Lamp\n\n## Red\n\n{RED}")
    shop.write("manual/green.md", f"# Lamp\n\n## Green\n\n{GREEN}")
    shop.write("hostile/<b>.txt", HOSTILE)
    shop.write("long.txt", f"{words(40, 1)} The battery lasts three years. {words(10, 2)}")
    shutil.copy(SAMPLES / "two-columns.pdf", shop.docs / "paper 1.pdf")
    shop.ingest()
    return shop


@pytest.fixture(scope="module")
def server(lamp: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), str(lamp.index), "--files") as found:
        yield found


def search(server: Server, query: str, **fields: Any) -> dict[str, Any]:
    answer = server.post("/v1/search", {"query": query, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_hits_are_those_of_the_command_line(server: Server, lamp: Workshop) -> None:
    found = search(server, "blinks red", k=1)
    assert (found["generation"], found["mode"]) == (1, "hybrid")
    (hit,) = found["hits"]
    (row,) = (row for row in lamp.rows() if row["path"] == "manual/red.md")
    for name in ("chunk_id", "doc_id", "uri", "path", "section", "text", "char_start", "page_start"):
        assert hit[name] == row[name]
    assert "vector" not in hit and hit["coverage"] == pytest.approx(0.5, abs=0.2)


def test_a_stored_passage_is_nearest_to_itself(server: Server, lamp: Workshop) -> None:
    """The engine that serves queries is the one that serves documents."""
    row = next(row for row in lamp.rows() if row["path"] == "manual/green.md")
    hit = search(server, row["text"], k=1, mode="vector")["hits"][0]
    assert hit["chunk_id"] == row["chunk_id"] and hit["cosine"] == pytest.approx(1.0, abs=1e-5)
    vector = server.post("/v1/embeddings", {"input": row["text"]}).json()["data"][0]["embedding"]
    assert np.dot(vector, row["vector"]) == pytest.approx(1.0, abs=1e-5)


def test_a_number_with_any_count_of_digits_is_found_as_it_was_read(tmp_path: Path) -> None:
    """An account, a UUID or a key that is written as a number may have more than 64 bits."""
    shop = Workshop(tmp_path)
    account = 98_765_432_109_876_543_210_987
    shop.write("accounts.jsonl", json.dumps({"id": "a", "text": RED, "account": account}))
    shop.ingest()
    with serving(tmp_path, str(shop.index)) as server:
        (hit,) = search(server, "blinks red", k=1)["hits"]
        assert hit["meta"]["account"] == account


def test_conditions_and_folders_narrow_the_search(server: Server) -> None:
    assert {hit["path"] for hit in search(server, "light", folder="manual")["hits"]} == {
        "manual/red.md", "manual/green.md",
    }  # fmt: skip
    found = search(server, "light", where="path like '%red%'", folder="/manual/", mode="words")
    assert [hit["path"] for hit in found["hits"]] == ["manual/red.md"]
    assert not search(server, "light", folder="man")["hits"] and not search(server, "light", folder="x' or 1=1")["hits"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": " "}, "`query` must be a text that is not empty"),
        ({"query": "a", "k": 0}, "`k` is `0`, not a number from 1 to 1,000"),
        ({"query": "a", "mode": "magic"}, "`mode` is `magic`, not one of hybrid, vector, words"),
        ({"query": "a", "min_score": "high"}, "`min_score` is `high`, not a number"),
        ({"query": "a", "where": 1}, "`where` must be a text"),
        ({"query": "a", "top_k": 1}, "there is no field `top_k`"),
        ({"query": "a", "where": "path like"}, "`--where` cannot be used"),
        ({"query": "a", "where": "true) or (true", "folder": "manual"}, "`--where` cannot be used: syntax error"),
        ({"query": "a", "where": "1 = (select 1)"}, "it has a `select` inside it"),
    ],
)
def test_what_is_wrong_with_a_search_is_named(server: Server, fields: dict[str, Any], message: str) -> None:
    assert message in error(server.post("/v1/search", fields), 400)["message"]


# ---- the page


def test_the_page_shows_passages_without_a_script_or_an_asset(server: Server) -> None:
    answer = server.get("/", params={"q": "battery red"})
    assert answer.status_code == 200 and "default-src 'none'" in answer.headers["content-security-policy"]
    html = answer.text
    assert not re.findall(r"<script|<link|<img|src=|@import|url\(", html)
    assert "<mark>battery</mark>" in html and 'value="battery red"' in html
    assert '<option value="manual">' in html and "manual/red.md" in html


def test_what_documents_say_is_text(server: Server) -> None:
    html = server.get("/", params={"q": 'alert "quoted"', "folder": '"><b>'}).text
    assert "<script" not in html and "<b>" not in html and "&lt;b&gt;" in html
    html = server.get("/", params={"q": "<i>alert"}).text
    assert "<i>" not in html and "&lt;script&gt;" in html


def test_the_page_without_a_query_says_what_it_searches(server: Server, lamp: Workshop) -> None:
    html = server.get("/").text
    assert f"{len(lamp.rows())} passages" in html and "<ol>" not in html


def test_the_page_narrows_to_a_folder_and_says_when_nothing_is_found(server: Server) -> None:
    assert "manual/green.md" not in server.get("/", params={"q": "light", "folder": "hostile"}).text
    assert "Nothing found." in server.get("/", params={"q": "light", "folder": "nowhere"}).text


def test_more_passages_are_a_link_away(server: Server, lamp: Workshop) -> None:
    html = server.get("/", params={"q": "battery", "n": "2"}).text
    assert html.count("<li>") == 2 and "n=12" in html
    assert server.get("/", params={"q": "battery", "n": "many"}).status_code == 200


def test_a_document_is_opened_where_files_are_allowed(server: Server, lamp: Workshop) -> None:
    html = server.get("/", params={"q": "blinks red"}).text
    address = re.search(r'href="(/files/[^"]+red\.md)"', html)
    assert address
    answer = server.get(address[1])
    assert answer.text == (lamp.docs / "manual/red.md").read_text()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_document_whose_name_is_not_utf_8_is_opened_too(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, index="idx")
    shop.docs.mkdir(exist_ok=True)
    Path(os.fsdecode(os.fsencode(shop.docs) + b"/latin\xe9.txt")).write_text("narwhal " * 9)
    shop.ingest()
    with serving(tmp_path, str(shop.index), "--files") as server:
        html = server.get("/", params={"q": "narwhal"}).text
        address = re.search(r'href="(/files/[^"]+)"', html)
        assert address
        answer = server.get(address[1])
    assert answer.status_code == 200 and answer.text == "narwhal " * 9
    assert "latin%25E9.txt" in answer.headers["content-disposition"]


def test_a_condition_that_would_take_all_memory_is_refused(server: Server) -> None:
    body = {"query": "red", "where": "length(repeat(text, 200000)) > 0"}
    assert "it has `repeat`" in error(server.post("/v1/search", body), 400)["message"]
    body["where"] = " or ".join(["path = 'x'"] * 20_000)
    message = error(server.post("/v1/search", body), 400)["message"]
    assert "it has 279,996 letters, 262,144 at most" in message and len(message) < 1000


def test_a_pdf_opens_at_its_page(server: Server, lamp: Workshop) -> None:
    row = next(row for row in lamp.rows() if row["path"] == "paper 1.pdf")
    html = server.get("/", params={"q": " ".join(row["text"].split()[:8])}).text
    address = f"/files/{row['chunk_id']}/paper%201.pdf"
    assert f'href="{address}#page={row["page_start"]}"' in html
    answer = server.get(address)
    assert answer.content == (SAMPLES / "two-columns.pdf").read_bytes()
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("inline")


def test_only_documents_of_the_index_are_given_away(server: Server, lamp: Workshop) -> None:
    row = next(row for row in lamp.rows() if row["path"] == "manual/green.md")
    address = f"/files/{row['chunk_id']}/any-name"
    assert server.get(address).status_code == 200
    path = lamp.docs / "manual/green.md"
    kept = path.read_text()
    secret = lamp.docs.parent / "secret"
    secret.write_text("outside")
    path.unlink()
    try:
        assert "is not on this machine" in error(server.get(address), 404)["message"]
        path.symlink_to(secret)
        assert error(server.get(address), 404)
    finally:
        path.unlink()
        path.write_text(kept)
    assert error(server.get("/files/0123456789abcdef/x"), 404)
    assert server.get("/files/../../etc/passwd").status_code == 404


def test_without_files_nothing_is_given_away(lamp: Workshop, tmp_path: Path) -> None:
    with serving(tmp_path, str(lamp.index)) as server:
        html = server.get("/", params={"q": "blinks red"}).text
        assert "red.md" in html and 'href="/files' not in html
        row = lamp.rows()[0]
        assert server.get(f"/files/{row['chunk_id']}/x").status_code == 404


def test_without_an_index_there_is_neither_page_nor_search(tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "minilm") as server:
        assert server.get("/").status_code == 404 and server.post("/v1/search", {"query": "a"}).status_code == 404


# ---- generations


def until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_a_new_generation_is_searched_without_a_restart(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", "The first text.")
    shop.ingest()
    with serving(tmp_path, str(shop.index)) as server:
        assert search(server, "first")["generation"] == 1
        shop.write("b.txt", "The second text.")
        shop.ingest()
        found = search(server, "second", k=1, mode="words")
        assert found["generation"] == 2 and found["hits"][0]["path"] == "b.txt"
        assert server.get("/health").json()["generation"] == 2


def test_searches_during_publishing_each_see_one_generation(shop: Workshop, tmp_path: Path) -> None:
    """Each generation has every document with its own number in it: a mix would show two numbers."""

    def write(number: int) -> None:
        for name in range(6):
            shop.write(f"{name}.txt", f"the text says generation{number} and nothing else {words(9, name)}")

    write(1)
    shop.ingest()
    stop = threading.Event()
    seen: list[tuple[int, set[str]]] = []
    bad: list[str] = []
    with serving(tmp_path, str(shop.index)) as server:

        def ask() -> None:
            with httpx.Client(base_url=server.address, timeout=60) as client:
                while not stop.is_set():
                    answer = client.post("/v1/search", json={"query": "text says", "k": 6, "mode": "words"})
                    if answer.status_code != 200:
                        bad.append(answer.text)
                        continue
                    said = {re.search(r"generation\d+", hit["text"])[0] for hit in answer.json()["hits"]}  # type: ignore[index]
                    seen.append((answer.json()["generation"], said))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for number in range(1, 5):
                if number > 1:
                    write(number)
                    shop.ingest()
                until(lambda number=number: seen and seen[-1][0] == number)
        finally:
            stop.set()
            thread.join()
    assert not bad and all(said == {f"generation{number}"} for number, said in seen)
    assert {number for number, _ in seen} == {1, 2, 3, 4}


def test_another_model_takes_over_when_the_index_is_built_anew(shop: Workshop, tmp_path: Path) -> None:
    """Another number of dimensions stands for another model: vectors of the old one fit no row."""
    shop.write("a.txt", RED)
    shop.ingest()
    with serving(tmp_path, str(shop.index)) as server:
        assert len(server.post("/v1/embeddings", {"input": "a"}).json()["data"][0]["embedding"]) == 16
        shop.ingest(dim=8, rebuild=True)
        answer = server.post("/v1/search", {"query": "red"})
        assert answer.status_code in (200, 503)
        server.wait_for("the index has another model now: minilm, 8 dimensions")
        until(lambda: server.get("/health").status_code == 200)
        assert search(server, RED, mode="vector")["hits"][0]["cosine"] == pytest.approx(1.0, abs=0.3)
        assert len(server.post("/v1/embeddings", {"input": "a"}).json()["data"][0]["embedding"]) == 8


def test_an_index_that_is_away_is_a_503_and_another_in_its_place_is_searched(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", RED)
    shop.ingest()
    other = Workshop(tmp_path / "other")
    other.write("b.txt", GREEN)
    other.ingest()
    with serving(tmp_path, str(shop.index)) as server:
        assert search(server, "light")["hits"][0]["path"] == "a.txt"
        shop.index.rename(shop.index.with_name("old"))
        found = error(server.post("/v1/search", {"query": "light"}), 503)
        assert "is not an index" in found["message"]
        page = server.get("/", params={"q": "light"})
        assert page.status_code == 503 and "is not an index" in page.text
        shutil.copytree(other.index, shop.index, symlinks=True)
        assert search(server, "light")["hits"][0]["path"] == "b.txt", "it has the number of the old one"
