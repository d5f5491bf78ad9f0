"""An index that an earlier version wrote is continued as it is: nothing is embedded again, no row changes.

In: `old_index/`, which version 0.1.0 made of the three documents beside it, in two generations, with MiniLM at 32
dimensions under the root /srv/manuals. Not here: what a raised version does to what is read (test_ingest.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedcli.engines import torch_engine
from embedcli.index.generations import Index
from embedcli.vault.disk import Disk
from embedcli.verbs.edits.moved import moved
from embedcli.verbs.edits.rollback import rollback
from embedcli.verbs.status import status
from embedcli.verbs.verify import verify
from tests.workshop import Workshop, words

OLD = Path(__file__).with_name("old_index")
ROOT = "/srv/manuals"


@pytest.fixture
def old(tmp_path: Path) -> Workshop:
    """A copy of the index, and of its documents where they lie now."""
    shop = Workshop(tmp_path)
    shutil.copytree(OLD / "index", shop.index, symlinks=True)
    shutil.copytree(OLD / "manuals", shop.docs, dirs_exist_ok=True)
    return shop


def opened(shop: Workshop) -> Index:
    return Index(shop.index, disk=Disk())


def content(shop: Workshop) -> dict[str, tuple[str, bytes]]:
    """Text and vector of every chunk, by its id."""
    rows = pq.read_table(shop.index / "current/vectors").to_pylist()
    return {row["chunk_id"]: (row["text"], str(row["vector"]).encode()) for row in rows}


def test_the_old_index_is_sound_and_tells_how_it_stands(old: Workshop) -> None:
    assert verify(opened(old)).damage == []
    found = status(opened(old))
    assert (found.generation, found.sources["indexed"], found.chunks) == (2, 3, 3)


def test_the_next_run_embeds_nothing_and_keeps_every_row(old: Workshop) -> None:
    before = content(old)
    moved(opened(old), ROOT, str(old.docs), warn=print)
    summary = old.ingest(dim=None, max_tokens=None)
    assert (summary.exit_code, summary.sources["unchanged"], old.embedded) == (0, 3, 0)
    assert content(old) == before


def test_only_a_new_document_is_embedded(old: Workshop) -> None:
    before = content(old)
    moved(opened(old), ROOT, str(old.docs), warn=print)
    old.write("new.txt", words(40))
    summary = old.ingest(
        dim=None, max_tokens=None,
        open_engine=lambda model, settings, _: torch_engine.open_engine(model, dim=settings.dim, device="cpu"),
    )  # fmt: skip
    assert (summary.sources["new"], summary.sources["unchanged"], summary.chunks["embedded"]) == (1, 3, 1)
    after = content(old)
    assert before.items() <= after.items() and len(after) == len(before) + 1


def test_its_parent_can_be_had_again(old: Workshop) -> None:
    assert rollback(opened(old), to=None, warn=print).generation == 1
    assert verify(opened(old)).damage == []
