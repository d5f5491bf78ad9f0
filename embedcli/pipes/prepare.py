"""What the engine gets for a text: its token ids, in one part or, with `--long split`, in several.

In: batches of Texts, a tokenizer, the limit. Out: each text with its parts, or with the problem for which it has none.
Not here: reading texts (texts.py), embedding them (in_order.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedcli.pipes.texts import Text
from embedcli.records import Document

if TYPE_CHECKING:
    from embedcli.models.tokenizer import Tokens

LONG = ("fail", "split", "truncate")
"""What becomes of a text of more tokens than the limit."""

EMPTY, TOO_LONG = "empty", "too long"


@dataclass(frozen=True, slots=True)
class Part:
    """What gets one vector: ids as the engine is fed, of the code points [char_start, char_end) of the text."""

    ids: npt.NDArray[np.uint32]
    char_start: int
    char_end: int


@dataclass(frozen=True)
class Limit:
    """The most tokens of a vector, special tokens included; what is done with a longer text; how its parts overlap."""

    max_tokens: int
    long: str = "fail"
    overlap: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text that is ready for the engine; without parts there is a `problem`, such as `empty` or `kind: detail`."""

    text: Text
    parts: tuple[Part, ...] = ()
    problem: str = ""


def prepare(batch: Sequence[Text], tokens: Tokens, limit: Limit) -> list[Prepared]:
    """The texts of a batch, in order, tokenised together. A text that is empty or blank has no vector."""
    ids = iter(tokens.whole_batch([text.text for text in batch if text.text and not text.text.isspace()]))
    return [
        _prepared(text, text.text, next(ids), tokens, limit)
        if text.text and not text.text.isspace()
        else Prepared(text, problem=text.problem or EMPTY)
        for text in batch
    ]


def _prepared(text: Text, content: str, ids: npt.NDArray[np.uint32], tokens: Tokens, limit: Limit) -> Prepared:
    size, most = ids.size + tokens.special_tokens, limit.max_tokens - tokens.special_tokens
    if size <= tokens.overhead and not tokens.encode(content).ids.size:  # only characters that the tokenizer drops
        return Prepared(text, problem=EMPTY)
    if ids.size <= most:
        return Prepared(text, (Part(tokens.row(ids), 0, len(content)),))
    if limit.long == "truncate":
        return Prepared(text, (Part(tokens.row(ids[:most]), 0, len(content)),))
    if limit.long == "split":
        return Prepared(text, tuple(_split(content, tokens, limit)))
    return Prepared(text, problem=f"{TOO_LONG}: {size:,} tokens, {limit.max_tokens:,} at most")


def _split(content: str, tokens: Tokens, limit: Limit) -> Iterator[Part]:
    """Cut as `ingest` cuts a document."""
    from embedcli.reading.chunker import split

    for chunk in split(Document(content), tokens, max_tokens=limit.max_tokens, overlap=limit.overlap):
        yield Part(chunk.token_ids, chunk.char_start, chunk.char_end)
