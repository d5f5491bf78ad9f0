"""`POST /v1/embeddings` answers as OpenAI's API does, in order, and says which text is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from embedcli.models import resolve
from embedcli.models.tokenizer import load_tokenizer
from tests.fake_engines import vector
from tests.serving.client import KILLER, Server, error, serving, vectors
from tests.workshop import words

DIM = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    limits = ("--max-texts", "40", "--max-body", "1")
    with serving(folder, "--model", "minilm", "--dim", str(DIM), "--max-tokens", "64", *limits,
                 fault="dies-of-killer") as found:  # fmt: skip
        yield found


def expected(text: str) -> np.ndarray:
    """The vector of the double for a text, tokenised here."""
    tokens = load_tokenizer(resolve.resolve("minilm", report=lambda _: None).folder)
    return vector(tokens.row_of(text), DIM)


def test_a_text_gets_its_vector(server: Server) -> None:
    answer = server.embed("The hub speaks Matter.")
    assert np.allclose(vectors(answer), [expected("The hub speaks Matter.")], atol=1e-6)
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "minilm")
    assert body["data"][0]["object"] == "embedding"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert answer.headers["content-type"] == "application/json"


def test_many_texts_keep_their_order(server: Server) -> None:
    texts = [words(1 + number * 7 % 12, number) for number in range(40)]
    texts[7] = texts[3]
    found = vectors(server.embed(texts))
    assert np.allclose(found, [expected(text) for text in texts], atol=1e-6)


def test_clients_at_once_get_their_own_vectors(server: Server) -> None:
    texts = [[words(1 + (client + number) % 12, 1000 * client + number) for number in range(9)] for client in range(12)]
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(server.embed, texts))
    for asked, answer in zip(texts, answers, strict=True):
        assert np.allclose(vectors(answer), [expected(text) for text in asked], atol=1e-6)


def test_base64_holds_the_same_float32(server: Server) -> None:
    texts = ["one", "two"]
    floats = vectors(server.embed(texts))
    data = server.embed(texts, encoding_format="base64").json()["data"]
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in data]
    assert np.array_equal(decoded, floats)


def test_fewer_dimensions_are_the_first_ones_at_unit_length(server: Server) -> None:
    whole, cut = vectors(server.embed("one")), vectors(server.embed("one", dimensions=5))
    assert cut.shape == (1, 5) and np.allclose(cut, whole[:, :5] / np.linalg.norm(whole[:, :5]), atol=1e-6)


def test_a_prompt_stands_before_each_text(server: Server) -> None:
    assert np.array_equal(vectors(server.embed("one", prompt="find: ")), vectors(server.embed("find: one")))
    assert error(server.embed("one", prompt=3), 400)["param"] == "prompt"


@pytest.mark.parametrize("kind", ["query", "document", "passage", "search_query", "search_document"])
def test_kinds_of_texts_have_the_names_of_other_servers(server: Server, kind: str) -> None:
    """MiniLM has one prompt for all."""
    assert np.array_equal(vectors(server.embed("one", input_type=kind)), vectors(server.embed("one")))


BAD = [
    ({"input": ""}, 400, "the input is empty", "input"),
    ({"input": ["a", " \n"]}, 400, "text 1 of the input (counted from 0) is empty", "input"),
    ({"input": []}, 400, "`input` must be a text, or a list of at least one", "input"),
    ({}, 400, "`input` must be a text, or a list of at least one", "input"),
    ({"input": {"a": 1}}, 400, "`input` must be a text, or a list of at least one", "input"),
    ({"input": ["a", None]}, 400, "text 1 of the input (counted from 0) is not a text", "input"),
    ({"input": ["a", "b " * 80]}, 400, "text 1 of the input (counted from 0) is too long: 82 tokens, 64 at most",
     "input"),
    ({"input": ["a"] * 41}, 413, "`input` has 41 texts, 40 at most (`--max-texts`)", "input"),
    ({"input": "a", "dimensions": 17}, 400, "`dimensions` is `17`, not a number from 1 to 16", "dimensions"),
    ({"input": "a", "dimensions": True}, 400, "`dimensions` is `True`, not a number from 1 to 16", "dimensions"),
    ({"input": "a", "encoding_format": "int8"}, 400, "`encoding_format` is `int8`, not `float` or `base64`",
     "encoding_format"),
    ({"input": "a", "input_type": "song"}, 400, "`input_type` is `song`, not one of document, passage,"
     " search_document, query, search_query", "input_type"),
    ({"input": "a", "model": "gpt"}, 404, "no model `gpt` here: this server has `minilm`", "model"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "message", "param"), BAD)
def test_what_is_wrong_is_named(server: Server, fields: dict[str, Any], status: int, message: str, param: str) -> None:
    found = error(server.post("/v1/embeddings", {"model": "minilm", **fields}), status)
    assert (found["message"], found["param"]) == (message, param)


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]], [[[1]]]])
def test_token_ids_are_refused_with_what_langchain_must_be_told(server: Server, ids: list[Any]) -> None:
    found = error(server.embed(ids), 400)
    assert "check_embedding_ctx_length=False" in found["message"] and found["code"] == "token_ids"


@pytest.mark.parametrize(
    ("body", "message"), [(b"{", "the body is not JSON: "), (b"[1]", "the body must be a JSON object"),
                          (b"", "the body is not JSON: "), (b'{"input": "\xff"}', "the body is not JSON: "),
                          (json.dumps({"input": "\ud800"}).encode(), "the body is not JSON: ")],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_a_400(server: Server, body: bytes, message: str) -> None:
    assert error(server.post("/v1/embeddings", body), 400)["message"].startswith(message)


def test_a_large_body_is_a_413_whether_or_not_its_length_is_known(server: Server) -> None:
    body = json.dumps({"input": "a" * (3 << 20)}).encode()
    for content in (body, iter([body[:1000], body[1000:]])):
        found = error(server.post("/v1/embeddings", content), 413)
        assert found["message"] == "the body has more than 1,048,576 bytes (`--max-body`)"


def test_a_text_that_ends_the_engine_is_named_and_the_others_are_embedded(server: Server) -> None:
    found = error(server.embed(["a", f"it {KILLER} this", "b"]), 422)
    assert found["message"] == "text 1 of the input (counted from 0) ends the engine, and is not tried again"
    server.wait_for("(?s)set aside.*")
    assert np.allclose(vectors(ready(server, "a")), [expected("a")], atol=1e-6)


def ready(server: Server, text: str) -> httpx.Response:
    """The answer, once the engine has started again."""
    while (answer := server.embed(text)).status_code == 503:
        pass
    return answer


def test_models_are_listed_and_one_is_described(server: Server) -> None:
    (model,) = server.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["dimensions"], model["max_model_len"]) == ("minilm", "model", 16, 64)
    assert server.get("/v1/models/minilm").json() == model
    assert error(server.get("/v1/models/gpt"), 404)["code"] == "model_not_found"


def test_an_unknown_path_and_a_wrong_method_are_errors_of_the_same_form(server: Server) -> None:
    found = error(server.post("/v1/completions", {}), 404)
    assert found["message"] == "there is no `POST /v1/completions`"
    found = error(server.get("/v1/embeddings"), 405)
    assert found["message"] == "the method is not for `GET /v1/embeddings`"


def test_health_and_metrics_tell_the_state(server: Server) -> None:
    server.embed("one")
    assert ready(server, "one").status_code == 200
    health = server.get("/health")
    assert health.status_code == 200 and health.json()["status"] == "ready"
    figures = server.get("/metrics").text
    assert 'embedcli_engine{state="ready"} 1.0' in figures and "embedcli_waiting_tokens 0.0" in figures
    assert 'embedcli_requests_total{endpoint="/v1/embeddings",status="200"}' in figures


def test_another_name_of_this_machine_is_refused(server: Server) -> None:
    """A page of the web that resolves its own name to 127.0.0.1 must not read the index."""
    found = error(server.get("/v1/models", headers={"Host": "evil.example:80"}), 403)
    assert "localhost" in found["message"]
    for name in ("localhost", "LOCALHOST:80", "127.0.0.2:80", "[::1]:80"):  # all that `--host` takes without a key
        assert server.get("/v1/models", headers={"Host": name}).status_code == 200
    for name in ("127.0.0.1.evil.example", "evil.example:127", "10.0.0.1", ""):
        assert server.get("/v1/models", headers={"Host": name}).status_code == 403


def test_a_key_that_is_not_ascii_is_taken_as_clients_send_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "minilm", EMBEDCLI_API_KEY="sécret") as server:
        for sent in ("sécret".encode(), "sécret".encode("latin-1")):
            assert server.get("/v1/models", headers={b"Authorization": b"Bearer " + sent}).status_code == 200
        assert server.get("/v1/models", headers={b"Authorization": b"Bearer s?cret"}).status_code == 401


def test_a_key_is_asked_for_by_bearer_or_by_a_browser(tmp_path: Path) -> None:
    with serving(tmp_path, "--model", "minilm", EMBEDCLI_API_KEY="secret\n") as server:  # as a file of secrets ends
        assert error(server.embed("a"), 401)["code"] == "invalid_api_key"
        key = {"Authorization": "Bearer secret"}
        body = {"model": "minilm", "input": "a"}
        assert server.post("/v1/embeddings", body, headers=key).status_code == 200
        assert server.get("/v1/models", auth=("anybody", "secret")).status_code == 200
        assert server.get("/v1/models", auth=("anybody", "wrong")).status_code == 401
        assert server.get("/health").status_code == 200
