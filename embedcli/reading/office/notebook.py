"""A Jupyter notebook (.ipynb) -> a Document: its text and code, without what the code put out.

In: the cleaned text of the file. Out: cells one after the other, headings of the text as sections; a file that is no
notebook inside is read as it stands. Not here: other JSON (structured.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from embedcli.reading.text.blocks import Blocks, as_it_stands
from embedcli.records import Document

_PICTURE = re.compile(r"\(\s*data:[^)\s]*\)|(?<=[\"'])data:[^\"'\s]*(?=[\"'])")
_HEADING_LINE = re.compile(r"^ {0,3}(#{1,6})[ \t]+(\S.*?)[ \t]*#*$")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)")


def read_notebook(text: str) -> Document:
    """The document in a notebook of any version."""
    blocks = Blocks()
    for kind, source, level in _cells(text):
        if kind == "heading":
            blocks.heading(source, level=level)
        elif kind == "markdown":
            _add_markdown(blocks, _PICTURE.sub("()", source))
        else:
            blocks.add(source)
    return blocks.document() if blocks else as_it_stands(text)


def _cells(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, source, level of a heading) of each cell; the sheets of old notebooks one after the other."""
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        return
    sheets = notebook.get("worksheets") if isinstance(notebook, dict) else None
    for sheet in sheets if isinstance(sheets, list) else [notebook]:
        cells = sheet.get("cells") if isinstance(sheet, dict) else None
        for cell in cells if isinstance(cells, list) else []:
            if isinstance(cell, dict):
                level = cell.get("level")
                source = _joined(cell.get("source", cell.get("input")))
                yield str(cell.get("cell_type")), source, level if isinstance(level, int) else 1


def _joined(source: Any) -> str:
    return "".join(str(line) for line in source) if isinstance(source, list) else str(source or "")


def _add_markdown(blocks: Blocks, source: str) -> None:
    """Headings apart from the text below them; `#` in fenced code is none."""
    passage: list[str] = []
    is_code = False
    for line in source.split("\n"):
        is_code ^= _FENCE.match(line) is not None
        heading = None if is_code else _HEADING_LINE.match(line)
        if heading is None:
            passage.append(line)
            continue
        blocks.add("\n".join(passage))
        passage = []
        blocks.heading(heading[2], level=len(heading[1]))
    blocks.add("\n".join(passage))
