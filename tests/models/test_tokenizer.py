"""tokenizer.py: ids and offsets equal the library's own, and a safe place is one for every text tried."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers_for_tests import TEXTS, metaspace, minilm, small_qwen, true_qwen

from embedcli.errors import ModelUnavailable
from embedcli.models import tokenizer
from embedcli.models.tokenizer import Tokens, load_tokenizer

KINDS = ["minilm", "small_qwen", "true_qwen"]
HOSTILE = [
    *" \t\n\r\x0b\x0c\x85\xa0\u2028\u3000\u0301\u0338\u200b\u200d\ufe0f\x01\xb4",
    *"aZé9.,!?'<|$=-_。、！灯台가ا्ा👍🏽²ﬁ",
]
hostile_texts = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.sampled_from([*TEXTS, "<|endoftext|>", "[SEP]", "'re", "\n\n"])),
    max_size=30,
).map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))


@pytest.fixture(scope="module")
def by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokens | None]:
    small = small_qwen(tmp_path_factory.mktemp("small"))
    return {"minilm": minilm(), "small_qwen": small, "true_qwen": true_qwen()}


def chosen(by_kind: dict[str, Tokens | None], kind: str) -> Tokens:
    tokens = by_kind[kind]
    if tokens is None:
        pytest.skip("EMBEDCLI_QWEN_TOKENIZER names no folder with a tokenizer.json")
    return tokens


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_at_a_safe_place_never_changes_the_tokens(kind: str, by_kind: dict[str, Tokens | None]) -> None:
    tokens = chosen(by_kind, kind)

    @settings(deadline=None, max_examples=25)
    @given(hostile_texts)
    def holds(text: str) -> None:
        whole = tokens.encode(text).ids.tolist()
        for position in range(len(text) + 1):
            if tokens.is_safe(text, position):
                left, right = tokens.encode(text[:position]), tokens.encode(text[position:])
                assert left.ids.tolist() + right.ids.tolist() == whole, (text, position)

    holds()


@pytest.mark.parametrize("kind", ["small_qwen", "true_qwen"])
def test_offsets_are_the_code_points_that_the_library_gives(
    kind: str, by_kind: dict[str, Tokens | None], tmp_path: Path
) -> None:
    tokens = chosen(by_kind, kind)

    @settings(deadline=None, max_examples=25)
    @given(hostile_texts)
    def holds(text: str) -> None:
        encoded, theirs = tokens.encode(text), tokens._tokenizer.encode(text, add_special_tokens=False)
        assert encoded.ids.tolist() == theirs.ids
        assert list(zip(encoded.starts.tolist(), encoded.ends.tolist(), strict=True)) == theirs.offsets

    holds()


def test_offsets_count_code_points_not_bytes(by_kind: dict[str, Tokens | None]) -> None:
    encoded = chosen(by_kind, "minilm").encode("灯台 cafés 👍 end")
    assert (encoded.starts[-1], encoded.ends[-1]) == (11, 14)


def test_text_that_is_not_in_nfc_still_gets_the_librarys_offsets(by_kind: dict[str, Tokens | None]) -> None:
    text = "cafe\u0301 two"
    encoded = chosen(by_kind, "small_qwen").encode(text)
    assert encoded.ends[-1] == len(text)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_are_text(kind: str, by_kind: dict[str, Tokens | None]) -> None:
    tokens = chosen(by_kind, kind)
    special = {*tokens.prefix_ids.tolist(), *tokens.suffix_ids.tolist()}
    assert not special & set(tokens.encode("a <|endoftext|> [CLS] [SEP] </s> b").ids.tolist())


def test_row_is_what_the_tokenizer_itself_would_feed(by_kind: dict[str, Tokens | None], tmp_path: Path) -> None:
    tokens = small_qwen(tmp_path, prompt="query: ")
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("query: the ships").ids
    assert tokens.row(tokens.whole("the ships")).tolist() == theirs
    assert tokens.overhead == 1 + len(tokens.encode("query: ").ids)
    bert = chosen(by_kind, "minilm")
    assert (bert.prefix_ids.tolist(), bert.suffix_ids.tolist(), bert.overhead) == ([101], [102], 2)
    assert bert.row(bert.whole("hi")).dtype == np.uint32


def test_truncation_and_padding_of_the_file_are_undone(by_kind: dict[str, Tokens | None]) -> None:
    assert len(chosen(by_kind, "minilm").encode("word " * 500).ids) == 500
    assert len(chosen(by_kind, "minilm").encode("word").ids) == 1


def test_an_unknown_kind_has_no_safe_place_inside_a_text(tmp_path: Path) -> None:
    tokens = metaspace(tmp_path)
    text = "one two\n\nthree"
    assert [place for place in range(len(text) + 1) if tokens.is_safe(text, place)] == [0, len(text)]


@pytest.mark.parametrize("change", ["regex", "normalizer", "added"])
def test_a_file_that_differs_from_a_known_kind_is_unknown(change: str, tmp_path: Path) -> None:
    small_qwen(tmp_path)
    file = tmp_path / "tokenizer.json"
    description = json.loads(file.read_text("utf-8"))
    if change == "regex":
        description["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+|\S+"
    elif change == "normalizer":
        description["normalizer"] = {"type": "NFKC"}
    else:
        description["added_tokens"].append({**description["added_tokens"][0], "special": False, "lstrip": True})
    file.write_text(json.dumps(description), "utf-8")
    assert load_tokenizer(tmp_path).safe is None


@pytest.mark.parametrize("content", [None, "{", '{"model": 1}'])
def test_a_folder_without_a_sound_tokenizer_is_an_unavailable_model(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content, "utf-8")
    with pytest.raises(ModelUnavailable, match="tokenizer.json"):
        load_tokenizer(tmp_path)


def test_the_prompts_of_a_model_share_one_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_qwen(tmp_path)
    read: list[str] = []
    from_str = Tokenizer.from_str
    library = SimpleNamespace(from_str=lambda content: (read.append(content), from_str(content))[1])
    monkeypatch.setattr(tokenizer, "Tokenizer", library)
    tokenizer._loaded.cache_clear()
    plain, asked = load_tokenizer(tmp_path), load_tokenizer(tmp_path, prompt="query: ")
    assert len(read) == 1
    assert asked.whole("ships").tolist() == plain.whole("query: ships").tolist() != plain.whole("ships").tolist()


def test_a_tokenizer_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    small_qwen(tmp_path)
    before = load_tokenizer(tmp_path).whole("ships")
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    ids = content["model"]["vocab"]
    ids["s"], ids["h"] = ids["h"], ids["s"]
    file.write_text(json.dumps(content))
    after = load_tokenizer(tmp_path).whole("ships")
    assert before.tolist() != after.tolist()
