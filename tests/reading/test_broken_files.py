"""Whatever is torn off a file or changed in it: a Document or an UnreadableSource, soon, and nothing else."""

from __future__ import annotations

import io
import json
import random
import time
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import docx as python_docx
import openpyxl
import pytest
from pptx import Presentation

from embedcli.errors import UnreadableSource
from embedcli.records import REASONS, Document
from tests import xlsb_files
from tests.office_files import odf, read_bytes, saved, zipped
from tests.ole_files import compound, message, workbook
from tests.reading.office.test_epub import epub


def word() -> bytes:
    made = python_docx.Document()
    made.add_heading("Install", 1)
    made.add_paragraph("Unpack it.", style="List Bullet")
    made.add_table(rows=2, cols=2).cell(0, 0).text = "Bolt"
    made.sections[0].footer.paragraphs[0].text = "ACME"
    return saved(made)


def sheet() -> bytes:
    made = openpyxl.Workbook()
    for row in (["Part", "Torque"], ["Bolt", 12.5], ["Nut", "x" * 50]):
        made.active.append(row)
    return saved(made)


def show() -> bytes:
    made = Presentation()
    slide = made.slides.add_slide(made.slide_layouts[1])
    slide.shapes.title.text = "Pump"
    slide.notes_slide.notes_text_frame.text = "Say hello."
    return saved(made)


def mail() -> bytes:
    made = EmailMessage()
    made["Subject"], made["From"], made["Date"] = "Grüße", "Jörg <j@example.org>", "Wed, 01 May 2024 10:30:00 +0200"
    made.set_content("Hello, für Sie")
    made.add_alternative("<p>Hello</p>" * 9, subtype="html")
    made.add_attachment(b"x" * 300, maintype="application", subtype="pdf", filename="Angebot für Sie.pdf")
    return made.as_bytes()


PAGE = (
    "<html><head><meta charset=utf-8><title>T</title></head><body><h1>A</h1><table><tr><td>ä<td>b</table></body></html>"
)
RICH = rb"{\rtf1\ansi{\fonttbl{\f1\fcharset204 F;}}{\header H\par}Te\'e4\u8364?xt{\b b}{\footnote N}\par\cell\row}"
ODT = odf('<text:h text:outline-level="1">A</text:h><text:p>b<text:note><text:p>c</text:p></text:note></text:p>')
MAKERS: dict[str, Callable[[], bytes]] = {
    "a.docx": word,
    "a.xlsx": sheet,
    "a.pptx": show,
    "a.eml": mail,
    "a.mbox": lambda: b"From a Wed May 1 2024\n" + mail() + b"\n\nFrom b x\n" + mail(),
    "a.mhtml": mail,
    "a.html": PAGE.encode,
    "a.odt": lambda: ODT,
    "a.epub": epub,
    "a.rtf": lambda: RICH,
    "a.msg": lambda: compound(message({"0037": "S", "1000": "It leaks. " * 30}, _10090102=b"\0" * 40)),
    "a.xls": lambda: workbook([["a", 1.0], ["b", 2.0]]),
    "a.xlsb": lambda: xlsb_files.workbook({"Sheet": [["Part", "n"], ["Bolt", 1.5]]}),
    "a.json": lambda: json.dumps({"a": [{"b": [1, 2.5]}, "x", None], "c": "<p>d</p>"}).encode(),
    "a.xml": lambda: b"<?xml version='1.0'?><a b='c'><d>e<f/>g</d>&amp;</a>",
    "a.svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><text>a<tspan>b</tspan></text></svg>",
    "a.ipynb": lambda: json.dumps({"cells": [{"cell_type": "markdown", "source": ["# a"]}]}).encode(),
    "a.srt": lambda: b"1\n00:00:01,000 --> 00:00:02,000\n<i>a</i>\n\n2\n00:00:01,000 --> 00:00:02,000\nb\n",
    "a.csv": lambda: b'a,b\n1,"x\ny"\n2,z\n',
}


def reason_of(data: bytes, name: str) -> str | None:
    """None where it can be read."""
    try:
        document = read_bytes(data, name)
    except UnreadableSource as error:
        return error.reason
    assert_whole(document)
    return None


def assert_whole(document: Document) -> None:
    offsets = [offset for offset, _ in document.sections] + [offset for _, offset in document.pages]
    assert document.text.strip() and all(0 <= offset < len(document.text) for offset in offsets)
    assert [offset for offset, _ in document.sections] == sorted(offset for offset, _ in document.sections)


def changed(data: bytes, generator: random.Random) -> bytes:
    made = bytearray(data + b" " * 50)
    for _ in range(generator.randrange(1, 12)):
        place = generator.randrange(len(made) - 9)
        piece = generator.choice([b"", b"<", b">", b"&", b"\0", b"\xff", b'"', b"{", b"}", bytes([made[place]]) * 9])
        made[place : place + generator.randrange(1, 4)] = piece
    return bytes(made[: generator.randrange(1, len(made) + 1)] if generator.random() < 0.3 else made)


def changed_inside(data: bytes, generator: random.Random) -> bytes:
    """A zip archive whose parts are changed and whose sums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = generator.choice([name for name in parts if name.endswith(("xml", "rels", "opf", "ncx"))])
    return zipped({**parts, name: changed(parts[name], generator)})


@pytest.mark.parametrize("name", MAKERS)
def test_a_broken_file_is_read_or_refused_by_a_known_reason(name: str) -> None:
    data = MAKERS[name]()
    assert reason_of(data, name) is None
    generator = random.Random(name)
    ways: list[Any] = [changed, *([changed_inside] * 2 if data.startswith(b"PK") else [])]
    for _ in range(150):
        started = time.process_time()
        reason = reason_of(generator.choice(ways)(data, generator), name)
        assert reason is None or reason in REASONS
        assert time.process_time() - started < 30
