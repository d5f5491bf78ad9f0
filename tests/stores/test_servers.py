"""A store's own server where there is one to be had: `chroma run`, reached by a URL."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.store_readers import _row, difference
from tests.stores.conftest import Moment, Place

chromadb = pytest.importorskip("chromadb")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    number = free_port()
    program = shutil.which("chroma", path=str(Path(sys.executable).parent))
    assert program is not None
    command = [program, "run", "--path", str(tmp_path / "served"), "--host", "127.0.0.1", "--port", str(number)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                break
        assert server.poll() is None, "the server ended"
        time.sleep(0.1)
    yield number
    server.terminate()
    server.wait()


def test_a_chroma_server_follows_the_index_as_the_embedded_one_does(port: int, moments: dict[str, Moment]) -> None:
    place = Place(f"chroma:http://127.0.0.1:{port}")
    for moment in moments.values():
        place.sync(moment)
        collection = chromadb.HttpClient(port=port).get_collection("notes", embedding_function=None)
        found = collection.get(include=["embeddings", "metadatas", "documents"])
        parts = zip(found["ids"], found["metadatas"], found["embeddings"], found["documents"], strict=True)
        held = {chunk_id: _row(row, vector, text) for chunk_id, row, vector, text in parts}
        assert difference(held, moment.rows) == []
