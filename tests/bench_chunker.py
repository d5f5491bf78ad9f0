"""What cutting costs beside tokenising, and how many chunks an insertion changes: a table, no test.

In: a text file of about 1 MB and, optionally, a tokenizer's folder (else the small one of the tests).
Out: lines on stdout, processor time. Run: `python tests/bench_chunker.py TEXT [TOKENIZER_FOLDER]`.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

from embedcli.models.tokenizer import Tokens, load_tokenizer
from embedcli.reading.chunker import PIECE_CODE_POINTS, split
from embedcli.records import Document
from tests.tokenizers_for_tests import small_qwen

INSERTED = "A paragraph that nobody expected stands in front.\n\n"


def main(arguments: list[str]) -> None:
    text = unicodedata.normalize("NFC", Path(arguments[0]).read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        tokens = load_tokenizer(Path(arguments[1])) if len(arguments) > 1 else small_qwen(Path(folder))
    memory(text, tokens)
    speed(text, tokens)
    locality(text, tokens)


def speed(text: str, tokens: Tokens) -> None:
    for max_tokens, overlap in ((128, 0), (512, 0), (512, 64), (8_192, 0)):
        alone, cut = [], []
        for _ in range(3):
            start = time.process_time()
            count = alone_tokens(text, tokens)
            middle = time.process_time()
            chunks = sum(1 for _ in split(Document(text), tokens, max_tokens=max_tokens, overlap=overlap))
            alone.append(middle - start)
            cut.append(time.process_time() - middle)
        print(
            f"max_tokens {max_tokens:5} overlap {overlap:3}: {chunks:6} chunks,"
            f" tokenizer {count / min(alone):9,.0f} tokens/s, split {count / min(cut):9,.0f} tokens/s,"
            f" ratio {min(alone) / min(cut):.2f}"
        )


def alone_tokens(text: str, tokens: Tokens) -> int:
    """The library itself, in pieces of the same size, with nothing taken out but the count."""
    starts = range(0, len(text), PIECE_CODE_POINTS)
    pieces = (text[start : start + PIECE_CODE_POINTS] for start in starts)
    return sum(len(tokens._tokenizer.encode(piece, add_special_tokens=False)) for piece in pieces)


def locality(text: str, tokens: Tokens) -> None:
    ours, theirs = [], []
    for seed in range(5):
        start = random.Random(seed).randrange(max(1, len(text) - 300_000))
        before = text[start : start + 300_000]
        after = INSERTED * (seed + 1) + before
        ours.append(changed(hashed(before, tokens), hashed(after, tokens)))
        theirs.append(changed(greedy(before, tokens), greedy(after, tokens)))
    print(f"chunks changed by a paragraph in front: {statistics.median(ours)}, greedy {statistics.median(theirs)}")


def changed(before: list[str], after: list[str]) -> int:
    return len(set(after) - set(before))


def hashed(text: str, tokens: Tokens) -> list[str]:
    chunks = split(Document(text), tokens, max_tokens=128, overlap=0)
    return [text[chunk.char_start : chunk.char_end] for chunk in chunks]


def greedy(text: str, tokens: Tokens) -> list[str]:
    """Filled to the brim, then cut at the last line end or blank in the upper half."""
    starts = tokens.encode(text).starts
    budget, position, chunks, index = 128 - tokens.overhead, 0, [], 0
    while index + budget < len(starts):
        low, high = int(starts[index + budget // 2]), int(starts[index + budget])
        line, blank = text.rfind("\n", low, high) + 1, text.rfind(" ", low + 1, high)
        cut = line if line > low else blank if blank > low else high
        chunks.append(text[position:cut])
        position, index = cut, int(starts.searchsorted(cut))
    return [*chunks, text[position:]]


def memory(text: str, tokens: Tokens) -> None:
    long = text * (20_000_000 // len(text))
    start, before = time.process_time(), peak_mb()
    count = sum(1 for _ in split(Document(long), tokens, max_tokens=512, overlap=64))
    seconds = time.process_time() - start
    print(f"20 M code points: {count} chunks, {seconds:.1f} s, peak RSS {before:.0f} -> {peak_mb():.0f} MB")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
