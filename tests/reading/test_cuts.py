"""Where the samples are cut is the same on every Python and in every version: another cut embeds everything anew.

In: `samples/` and the committed `cuts.json`. `python -m tests.reading.test_cuts` writes that file anew, which is
right only together with a raised BOUNDARY_VERSION (or READ_VERSION, or other samples).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from embedcli.errors import UnreadableSource
from embedcli.fingerprints import BOUNDARY_VERSION
from embedcli.models.tokenizer import Tokens
from embedcli.reading import formats
from embedcli.reading.chunker import split
from embedcli.records import Document
from tests.tokenizers_for_tests import minilm, true_qwen

SAMPLES = Path(__file__).parents[2] / "samples"
COMMITTED = Path(__file__).with_name("cuts.json")
SIZES = ((64, 0), (256, 0), (256, 32))
"""max_tokens, overlap."""

TOKENIZERS = {"minilm": minilm, "qwen3": true_qwen}


def documents() -> dict[str, Document]:
    found = {}
    for path in sorted(path for path in SAMPLES.glob("[!.]*") if path.is_file() and path.suffix != ".py"):
        with path.open("rb") as file:
            try:
                found[path.name] = formats.read(file, name=path.name, beat=lambda page: None)
            except UnreadableSource:
                continue
    return found


def cuts_of(tokens: Tokens) -> dict[str, dict[str, list[str]]]:
    """By size and sample: `start core end digest-of-ids` of each chunk."""
    return {
        f"{max_tokens}/{overlap}": {
            name: [
                f"{chunk.char_start} {chunk.core_start} {chunk.char_end} {digest_of(chunk.token_ids)}"
                for chunk in split(document, tokens, max_tokens=max_tokens, overlap=overlap)
            ]
            for name, document in documents().items()
        }
        for max_tokens, overlap in SIZES
    }


def digest_of(token_ids: object) -> str:
    return hashlib.blake2b(repr([int(number) for number in token_ids]).encode(), digest_size=4).hexdigest()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_samples_are_cut_where_they_were_cut_before(name: str) -> None:
    tokens = TOKENIZERS[name]()
    if tokens is None:
        pytest.skip("EMBEDCLI_QWEN_TOKENIZER names no folder with a tokenizer.json")
    committed = json.loads(COMMITTED.read_text())
    assert committed["boundary_version"] == BOUNDARY_VERSION
    assert cuts_of(tokens) == committed[name]


def write() -> None:
    made: dict[str, object] = {"boundary_version": BOUNDARY_VERSION}
    for name, load in TOKENIZERS.items():
        tokens = load()
        assert tokens is not None, "EMBEDCLI_QWEN_TOKENIZER must name a folder with a tokenizer.json"
        made[name] = cuts_of(tokens)
    COMMITTED.write_text(json.dumps(made, indent=0, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write()
