"""Subtitles (.srt, .vtt) -> a Document: what is said, without numbers and times.

In: the cleaned text of the file. Out: a line for each caption; one that only goes on with the last one is not said
twice. A file without captions is read as it stands. Not here: how lines become a Document (text/blocks.py).
"""

from __future__ import annotations

import html
import re

from embedcli.reading.text.blocks import LINE, Blocks, as_it_stands
from embedcli.records import Document

_TIME = r"(?:\d{1,4}:)?\d{1,2}:\d\d[.,]\d{1,3}"
_TIMES = re.compile(rf"^[ \t]*{_TIME}[ \t]+-->[ \t]+{_TIME}.*$", re.MULTILINE)
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
_MARK = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")


def read_subtitles(text: str) -> Document:
    """The document in the text of a file."""
    blocks = Blocks()
    said: list[str] = []
    captions = _TIMES.split(text)[1:]
    for number, caption in enumerate(captions, start=1):
        # behind an empty line stand the number or the name of the next caption
        words, gap, _ = caption.lstrip("\n").partition("\n\n")
        if not gap and caption.startswith("\n\n") and number < len(captions):
            continue  # nothing else: this one is empty
        words = html.unescape(_MARK.sub("", _VOICE.sub(r"\1: ", words)))
        lines = [line for part in words.split("\n") if (line := " ".join(part.split()))]
        fresh = [line for line in lines if line not in said]
        said = lines
        blocks.add(" ".join(fresh), gap=LINE)
    return blocks.document() if blocks else as_it_stands(text)
