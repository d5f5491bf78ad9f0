"""The clients that people use embed and search against the server, as their documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedcli.models import resolve
from embedcli.models.tokenizer import load_tokenizer
from tests.fake_engines import vector
from tests.serving.client import Server, serving
from tests.workshop import Workshop, words

DIM = 16
TEXTS = [words(1 + number % 9, number) for number in range(23)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    for number, text in enumerate(TEXTS):
        shop.write(f"{number}.txt", text)
    shop.ingest()
    with serving(tmp_path_factory.mktemp("server"), str(shop.index), EMBEDCLI_API_KEY="secret") as found:
        yield found


def expected(texts: list[str]) -> np.ndarray:
    tokens = load_tokenizer(resolve.resolve("minilm", report=lambda _: None).folder)
    return np.array([vector(tokens.row_of(text), DIM) for text in texts])


def nearest(query: Any, vectors: Any) -> int:
    return int(np.argmax(np.asarray(vectors) @ np.asarray(query)))


def test_openai(server: Server) -> None:
    """It asks for base64 by itself. `extra_body` carries what OpenAI's own API does not have."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="secret", max_retries=0)
    found = client.embeddings.create(model="minilm", input=TEXTS)
    vectors = [item.embedding for item in found.data]
    assert np.allclose(vectors, expected(TEXTS), atol=1e-6) and found.usage.total_tokens > len(TEXTS)
    query = client.embeddings.create(model="minilm", input=TEXTS[5], extra_body={"input_type": "query"})
    assert nearest(query.data[0].embedding, vectors) == 5
    assert len(client.embeddings.create(model="minilm", input="a", dimensions=4).data[0].embedding) == 4
    hits = client.post("/search", body={"query": TEXTS[7], "k": 1}, cast_to=dict[str, Any])["hits"]
    assert hits[0]["path"] == "7.txt"
    assert [model.id for model in client.models.list()] == ["minilm"]
    with pytest.raises(openai.NotFoundError, match="no model `gpt` here"):
        client.embeddings.create(model="gpt", input="a")
    with pytest.raises(openai.BadRequestError, match="text 1 of the input"):
        client.embeddings.create(model="minilm", input=["a", ""])
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_langchain(server: Server) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    from langchain_core.vectorstores import InMemoryVectorStore

    embeddings = langchain_openai.OpenAIEmbeddings(
        model="minilm", base_url=f"{server.address}/v1", api_key="secret", check_embedding_ctx_length=False
    )
    assert np.allclose(embeddings.embed_documents(TEXTS), expected(TEXTS), atol=1e-6)
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    (document,) = store.similarity_search(TEXTS[5], k=1)
    assert document.page_content == TEXTS[5]


def test_llama_index(server: Server) -> None:
    openai_like = pytest.importorskip("llama_index.embeddings.openai_like")
    from llama_index.core import Document, VectorStoreIndex

    model = openai_like.OpenAILikeEmbedding(
        model_name="minilm", api_base=f"{server.address}/v1", api_key="secret", embed_batch_size=10
    )
    texts = [text.strip() for text in TEXTS]
    assert np.allclose(model.get_text_embedding_batch(texts), expected(texts), atol=1e-6)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=model)
    (hit,) = index.as_retriever(similarity_top_k=1).retrieve(texts[5])
    assert hit.text == texts[5]
