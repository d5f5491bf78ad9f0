"""A model folder -> token ids with offsets; the one door of the `tokenizers` package.

In: a folder with `tokenizer.json`, and the prompt the model wants in front of a text. Out: `Tokens`, which
turns text into ids and code-point offsets, ids into the row that an engine gets, and knows the safe places of a text:
cut there, the ids of its parts are the ids of the whole, in two parts. Not here: where to cut (reading/chunker.py).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedcli.errors import ModelUnavailable

if TYPE_CHECKING:
    from embedcli.models.folder import Model

Ids = NDArray[np.uint32]
Offsets = NDArray[np.int64]

BLANK = "\\t\\x0b\\x0c \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"
"""White space but \\r and \\n, as a regex class; spelled out, as Python's own \\s has \\x1c-\\x1f besides."""

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

LINE_OR_BLANK = re.compile(rf"(?<=\n)(?=[{BLANK}]*[^{BLANK}\r\n])|(?<=[^{BLANK}\r\n])(?=[{BLANK}])")
"""The places before a line with text, and between a word and the blank after it."""

_BERT_BLANK = "\\t\\n\\r \\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"  # \x0b \x0c \x85 are deleted
_BERT_PUNCTUATION = (  # only what every version of Unicode calls punctuation
    "!-/:-@\\[-`{-~\\xa1\\xa7\\xab\\xb6\\xb7\\xbb\\xbf\\u060c\\u061b\\u061f\\u06d4\\u0964\\u0965"
    "\\u2010-\\u2027\\u2030-\\u2043\\u3001-\\u3003\\u3008-\\u3011\\uff01-\\uff03\\uff05-\\uff0a\\uff0c-\\uff0f"
    "\\uff1a\\uff1b\\uff1f\\uff20"
)
_BERT_HAN = (
    "\\u4e00-\\u9fff\\u3400-\\u4dbf\\uf900-\\ufaff\\U00020000-\\U0002a6df\\U0002a700-\\U0002b73f"
    "\\U0002b740-\\U0002b81f\\U0002b920-\\U0002ceaf\\U0002f800-\\U0002fa1f"
)

_HINT = "name another `--model`, or the folder of a complete one"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of a text: their ids, and the code points, from `starts` to before `ends`, that each stands for."""

    ids: Ids
    starts: Offsets
    ends: Offsets


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The content of a `tokenizer.json`: what a Tokens with any prompt needs of it."""

    tokenizer: Tokenizer
    safe: re.Pattern[str] | None
    id_bytes: Offsets | None


class Tokens:
    """A tokenizer that neither truncates nor pads, and for which special-token strings in a text are text."""

    def __init__(self, loaded: _Loaded, *, prompt: str = "") -> None:
        self._tokenizer = loaded.tokenizer
        self.safe = loaded.safe
        self._id_bytes = loaded.id_bytes
        self.prompt = prompt
        self.prefix_ids, self.suffix_ids = _special_ids(loaded.tokenizer)
        self.special_tokens = len(self.prefix_ids) + len(self.suffix_ids)
        self.overhead = self.special_tokens + (len(self._ids(prompt)) if prompt else 0)

    def encode(self, text: str) -> Encoded:
        """The tokens of `text` alone: no prompt, no special tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, np.uint32)
        offsets = self._offsets_by_length(text, ids)
        if offsets is None:
            flat = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(ids))
            offsets = flat[0::2], flat[1::2]
        return Encoded(ids, *offsets)

    def whole(self, text: str) -> Ids:
        """The ids of prompt + text, tokenised as one text."""
        return self._ids(self.prompt + text)

    def whole_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`whole` of each text; on several cores, with no other thread of Python waiting for it."""
        encodings = self._tokenizer.encode_batch_fast([self.prompt + text for text in texts], add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def row_of(self, text: str) -> Ids:
        """The row for a whole text that fits: prompt and text between the model's special tokens."""
        return self.row(self.whole(text))

    def row(self, ids: Ids) -> Ids:
        """The row that the engine gets: the ids between the model's special tokens."""
        return np.concatenate((self.prefix_ids, ids, self.suffix_ids))

    def is_safe(self, text: str, position: int) -> bool:
        """Whether the tokens of `text` are those of its two parts, cut at `position`, one after the other."""
        if position in (0, len(text)):
            return True
        return self.safe is not None and self.safe.match(text, position) is not None

    def _ids(self, text: str) -> Ids:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)

    def _offsets_by_length(self, text: str, ids: Ids) -> tuple[Offsets, Offsets] | None:
        """The offsets, by adding up the bytes of byte-level tokens: a tenth of the cost of fetching a tuple for each
        token. None for other tokenizers and where the sum is not the length of the text."""
        if self._id_bytes is None or not unicodedata.is_normalized("NFC", text):
            return None
        lengths = self._id_bytes[ids]
        ends = np.cumsum(lengths)
        if text.isascii():
            return (ends - lengths, ends) if int(lengths.sum()) == len(text) else None
        lead = (np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80
        if int(lengths.sum()) != len(lead):
            return None
        character = np.cumsum(lead) - 1
        return character[ends - lengths], character[ends - 1] + 1


def load_tokenizer(folder: Path, *, prompt: str = "") -> Tokens:
    """The tokenizer of a model folder. Raises ModelUnavailable."""
    file = folder / "tokenizer.json"
    try:
        stat = file.stat()
        return Tokens(_loaded(file, (stat.st_size, stat.st_mtime_ns, stat.st_ino)), prompt=prompt)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"cannot read the tokenizer `{file}`: {error}", _HINT) from error


@lru_cache(maxsize=1)
def _loaded(file: Path, version: tuple[int, ...]) -> _Loaded:
    """The content of a file in one version of it. It is kept: a process asks for it with each prompt of its model, and
    to load Qwen's again takes 0.8 s and 100 MB. Nothing changes it, so threads may share it. Raises OSError,
    ValueError, ModelUnavailable."""
    content = file.read_text("utf-8")
    description = json.loads(content)
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises nothing narrower
        raise ModelUnavailable(f"cannot load the tokenizer `{file}`: {error}", _HINT) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # lost on saving and pickling, hence set on every load
    safe = _safe_places(description)
    return _Loaded(tokenizer, safe, _bytes_per_id(description) if safe is LINE_OR_BLANK else None)


def skipped_tokens(model: Model) -> int:
    """How many ids at the start of every chunk its pooling leaves out: the prompt and the special tokens before it."""
    if model.include_prompt or not model.prompt:
        return 0
    tokens = load_tokenizer(model.folder, prompt=model.prompt)
    return tokens.overhead - len(tokens.suffix_ids)


def _special_ids(tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    """The special tokens before and after a text, as the tokenizer's own post-processor puts them."""
    whole = tokenizer.encode("a", add_special_tokens=True)
    own = [place for place, special in enumerate(whole.special_tokens_mask) if not special]
    first, last = (own[0], own[-1] + 1) if own else (len(whole.ids), len(whole.ids))
    return np.array(whole.ids[:first], np.uint32), np.array(whole.ids[last:], np.uint32)


def _safe_places(description: dict[str, Any]) -> re.Pattern[str] | None:
    """The places where this kind of tokenizer never makes one token of both sides; None for an unknown kind."""
    added = [token for token in description.get("added_tokens", ()) if not token["special"]]
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
        return None
    if any(re.search(rf"[{BLANK}\r\n]", token["content"]) for token in added):
        return None
    if _is_qwen(description):
        return LINE_OR_BLANK
    return _bert_places(description) if not added else None


def _is_qwen(description: dict[str, Any]) -> bool:
    """A byte-level BPE behind Qwen's regex, whose branches never reach over a LINE_OR_BLANK place."""
    model, normalizer = description["model"], description.get("normalizer")
    steps = (description.get("pre_tokenizer") or {}).get("pretokenizers", [])
    return bool(
        model["type"] == "BPE"
        and not model.get("dropout")
        and (normalizer is None or normalizer["type"] == "NFC")
        and [step["type"] for step in steps] == ["Split", "ByteLevel"]
        and steps[0]["pattern"] == {"Regex": _QWEN_SPLIT}
        and (steps[0]["behavior"], steps[0]["invert"]) == ("Isolated", False)
        and not steps[1]["add_prefix_space"]
        and not steps[1]["use_regex"]
    )


def _bert_places(description: dict[str, Any]) -> re.Pattern[str] | None:
    """BERT's words end at white space, punctuation and (if asked for) Han; word pieces stay inside a word.

    A deleted character (controls, stripped accents) joins its neighbours, so one side must be a separator.
    """
    model, normalizer = description["model"], description.get("normalizer") or {}
    before = description.get("pre_tokenizer") or {}
    if (model["type"], normalizer.get("type"), before.get("type")) != (
        "WordPiece",
        "BertNormalizer",
        "BertPreTokenizer",
    ):
        return None
    separators = _BERT_BLANK + _BERT_PUNCTUATION + (_BERT_HAN if normalizer["handle_chinese_chars"] else "")
    return re.compile(rf"(?<=[{separators}])|(?=[{separators}])")


def _bytes_per_id(description: dict[str, Any]) -> Offsets:
    """How many bytes of text each id stands for: byte-level vocabularies write one character a byte."""
    vocabulary = description["model"]["vocab"]
    added = {token["id"]: len(token["content"].encode()) for token in description.get("added_tokens", ())}
    lengths = np.zeros(1 + max(chain(vocabulary.values(), added)), np.int64)
    lengths[list(vocabulary.values())] = [len(token) for token in vocabulary]
    lengths[list(added)] = list(added.values())
    return lengths
