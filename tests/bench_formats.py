"""A company's folder in every format, made by real programs and read back: a table, no test.

In: how many files (default: 300). Out: a line for each format: files, seconds of processor time to read them, tokens,
and how many are wrong: a sentence that a person sees is in no chunk, or one that nobody sees (deleted, hidden, in a
script) is in one, there is markup or data in a chunk, or the state is another than expected. Then what is wrong, by
name; the last line sums up. Files come from python-docx, openpyxl, python-pptx, reportlab, the standard library's
email, mailbox, csv and json, and from LibreOffice where it is installed, unless `--no-office` is given; .xlsb, .xls,
.msg and .ipynb follow their descriptions.
Run: `PYTHONPATH=. python tests/bench_formats.py [FILES] [--no-office]`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import mailbox
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import docx
import openpyxl
from pptx import Presentation
from reportlab.pdfgen.canvas import Canvas

from embedcli.errors import UnreadableSource
from embedcli.reading import formats
from tests import ole_files, xlsb_files
from tests.workshop import Workshop

FILES = 300
WORDS = "The pump runs at twelve bar. Its valve is closed by hand before the filter is changed. " * 3
RUBBISH = re.compile(
    r"</?(?:p|div|span|td|w:\w+|a:\w+|text:\w+)\b|[A-Za-z0-9+/]{160}|\\(?:par|rtf1|fonttbl)|font-family|Content-Transfer"
)
SOFFICE = None if "--no-office" in sys.argv else shutil.which("soffice")
CONVERTED = {
    "text": ["docx", "odt", "rtf", "html", "epub", "pdf", "txt", "fodt", "doc"],
    "sheet": ["xlsx", "ods", "xls", "csv", "fods"],
    "show": ["pptx", "odp", "pdf", "fodp", "ppt"],
}
"""What LibreOffice makes of a text, a workbook and a presentation."""
NOT_READ = {".doc": "unsupported", ".ppt": "unsupported", ".zip": "archive"}


@dataclass
class Made:
    """What must be found in a file, and what must not; `reason`: of one that is not read."""

    seen: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    reason: str | None = None


class Sentences:
    """Sentences that stand nowhere else."""

    def __init__(self, name: str, made: Made) -> None:
        self._name = re.sub(r"\W+", " ", name).strip()
        self._made = made

    def seen(self, place: str) -> str:
        self._made.seen.append(f"In the {place} of {self._name} the gasket is green.")
        return self._made.seen[-1]

    def unseen(self, place: str) -> str:
        self._made.unseen.append(f"Nobody sees the {place} of {self._name} at all.")
        return self._made.unseen[-1]


# ---- by Python's libraries


def make_docx(path: Path, say: Sentences) -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = say.seen("header")
    document.add_heading(say.seen("heading"), 1)
    document.add_paragraph(say.seen("paragraph") + " " + WORDS)
    document.add_paragraph(say.seen("list"), style="List Bullet")
    table = document.add_table(2, 2)
    for number, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = say.seen(f"cell {number}")
    document.save(str(path))


def make_xlsx(path: Path, say: Sentences) -> None:
    book = openpyxl.Workbook()
    book.active.append(["Part", "Count", "Note"])
    for number in range(5):
        book.active.append([f"Bolt {number}", number, say.seen(f"row {number}")])
    book.create_sheet("Second").append([say.seen("second sheet"), 3.5])
    hidden = book.create_sheet("Hidden")
    hidden.append([say.unseen("hidden sheet")])
    hidden.sheet_state = "hidden"
    book.save(path)


def make_xlsb(path: Path, say: Sentences) -> None:
    rows: list[list[Any]] = [["Part", "Note"], *([f"Bolt {n}", say.seen(f"row {n}")] for n in range(5))]
    sheets = {"Bolts": rows, "Hidden": [[say.unseen("hidden sheet")]]}
    path.write_bytes(xlsb_files.workbook(sheets, hidden=["Hidden"]))


def make_xls(path: Path, say: Sentences) -> None:
    rows: list[list[str | float]] = [["Part", "Note"], *([f"Bolt {n}", say.seen(f"row {n}")] for n in range(3))]
    path.write_bytes(ole_files.workbook(rows, hidden="Hidden"))


def make_pptx(path: Path, say: Sentences) -> None:
    show = Presentation()
    for number in range(2):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = say.seen(f"title {number}")
        slide.placeholders[1].text = say.seen(f"slide {number}") + " " + WORDS
        slide.notes_slide.notes_text_frame.text = say.seen(f"notes {number}")
    show.save(str(path))


def make_pdf(path: Path, say: Sentences) -> None:
    canvas = Canvas(str(path))
    for number in range(2):
        for line, text in enumerate([say.seen(f"page {number}"), *WORDS.split(". ")]):
            canvas.drawString(72, 760 - 14 * line, text)
        canvas.showPage()
    canvas.save()


def page_of(say: Sentences) -> str:
    return (
        f"<html><head><title>Bolts</title><style>p {{ font-family: x }}</style></head><body>"
        f"<script>var x = '{say.unseen('script')}';</script><h1>{say.seen('heading')}</h1>"
        f"<p>{say.seen('paragraph')} {WORDS}</p><p style='display:none'>{say.unseen('hidden paragraph')}</p>"
        f"<table><tr><td>{say.seen('cell')}</td><td>7</td></tr></table></body></html>"
    )


def make_html(path: Path, say: Sentences) -> None:
    path.write_text(page_of(say))


def make_mhtml(path: Path, say: Sentences) -> None:
    mail = EmailMessage()
    mail["Subject"] = "Saved page"
    mail.set_content(page_of(say), subtype="html", cte="quoted-printable")
    mail.make_related()
    path.write_bytes(mail.as_bytes())


def mail_of(say: Sentences, *, attached: bool = True) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = say.seen("subject"), "anna@example.org", "ben@example.org"
    mail["Date"] = "Mon, 02 Nov 2026 10:00:00 +0100"
    body = say.seen("body")
    mail.set_content(f"{body} äöü {WORDS}")
    mail.add_alternative(f"<p>{body} äöü</p><style>p {{}}</style>", subtype="html")
    if attached:
        mail.add_attachment(say.seen("attachment"), filename="note.txt")
        mail.add_attachment(bytes(range(256)) * 40, maintype="image", subtype="png", filename="logo.png")
    return mail


def make_eml(path: Path, say: Sentences) -> None:
    path.write_bytes(mail_of(say).as_bytes())


def make_mbox(path: Path, say: Sentences) -> None:
    with contextlib.closing(mailbox.mbox(str(path))) as box:
        for number in range(3):
            mail = EmailMessage()
            mail["Subject"], mail["From"], mail["To"] = f"Mail {number}", "anna@example.org", "ben@example.org"
            mail.set_content(say.seen(f"mail {number}"))
            box.add(mail)


def make_msg(path: Path, say: Sentences) -> None:
    streams = ole_files.message({"0037": say.seen("subject"), "1000": f"{say.seen('body')} {WORDS * 20}"})
    path.write_bytes(ole_files.compound(streams))


def make_csv(path: Path, say: Sentences) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerows([["part", "note"], *([f"Bolt, {n}", say.seen(f"row {n}")] for n in range(4))])


def make_json(path: Path, say: Sentences) -> None:
    path.write_text(json.dumps({"parts": [{"name": say.seen(f"part {n}"), "torque": n} for n in range(4)]}))


def make_jsonl(path: Path, say: Sentences) -> None:
    path.write_text("".join(json.dumps({"id": n, "text": say.seen(f"record {n}")}) + "\n" for n in range(4)))


def make_ipynb(path: Path, say: Sentences) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Part\n", say.seen("words")]},
        {
            "cell_type": "code", "source": [f"x = 1  # {say.seen('code')}"],
            "outputs": [{"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo" * 400}}],
        },
    ]  # fmt: skip
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))


def make_srt(path: Path, say: Sentences) -> None:
    head = "WEBVTT\n\n" if path.suffix == ".vtt" else ""
    point = "." if path.suffix == ".vtt" else ","
    times = [f"00:00:0{n}{point}000 --> 00:00:0{n + 1}{point}000" for n in range(3)]
    path.write_text(head + "\n\n".join(f"{n + 1}\n{time}\n{say.seen(f'line {n}')}" for n, time in enumerate(times)))


def make_xml(path: Path, say: Sentences) -> None:
    path.write_text(f"<?xml version='1.0'?><parts><part id='7'>{say.seen('element')}<sub>{WORDS}</sub></part></parts>")


def make_svg(path: Path, say: Sentences) -> None:
    path.write_text(
        f"<svg xmlns='http://www.w3.org/2000/svg'><path d='{'M 0 0 L 1 1 ' * 50}'/>"
        f"<text>{say.seen('drawing')}</text></svg>"
    )


def make_text(path: Path, say: Sentences) -> None:
    path.write_text(f"# {say.seen('heading')}\n\n{say.seen('paragraph')} {WORDS}\n")


def make_old_text(path: Path, say: Sentences) -> None:
    path.write_bytes(f"{say.seen('paragraph')} Über Größe und Maß: die Prüfung läuft. {WORDS}\n".encode("cp1252"))


def make_zip(path: Path, say: Sentences) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", say.unseen("archive"))


Make = Callable[[Path, Sentences], None]
MAKERS: dict[str, Make] = {
    ".docx": make_docx, ".docm": make_docx, ".xlsx": make_xlsx, ".xlsm": make_xlsx, ".xlsb": make_xlsb,
    ".xls": make_xls, ".pptx": make_pptx, ".pdf": make_pdf, ".html": make_html, ".xhtml": make_html,
    ".mhtml": make_mhtml, ".eml": make_eml, ".mbox": make_mbox, ".msg": make_msg, ".csv": make_csv,
    ".tsv": make_csv, ".json": make_json, ".jsonl": make_jsonl, ".ipynb": make_ipynb, ".srt": make_srt,
    ".vtt": make_srt, ".xml": make_xml, ".svg": make_svg, ".md": make_text, ".txt": make_old_text, ".zip": make_zip,
}  # fmt: skip


# ---- by LibreOffice

OFFICE = "urn:oasis:names:tc:opendocument:xmlns"
FLAT = (
    f'<?xml version="1.0"?><office:document xmlns:office="{OFFICE}:office:1.0" xmlns:text="{OFFICE}:text:1.0"'
    f' xmlns:table="{OFFICE}:table:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    ' office:version="1.3" office:mimetype="application/vnd.oasis.opendocument.text"><office:body><office:text>'
    '<text:tracked-changes><text:changed-region text:id="c1"><text:deletion><office:change-info><dc:creator>Anna'
    "</dc:creator><dc:date>2026-11-02T10:00:00</dc:date></office:change-info><text:p>{deleted}</text:p></text:deletion>"
    "</text:changed-region></text:tracked-changes>"
    '<text:h text:outline-level="1">{heading}</text:h><text:p>{paragraph}<text:change text:change-id="c1"/>'
    '<text:note text:note-class="footnote"><text:note-citation>1</text:note-citation><text:note-body><text:p>{footnote}'
    "</text:p></text:note-body></text:note></text:p><text:list><text:list-item><text:p>{item}</text:p></text:list-item>"
    '</text:list><table:table table:name="T"><table:table-column table:number-columns-repeated="2"/><table:table-row>'
    "<table:table-cell><text:p>{cell}</text:p></table:table-cell><table:table-cell><text:p>7</text:p></table:table-cell>"
    "</table:table-row></table:table><text:p>{words}</text:p></office:text></office:body></office:document>"
)


def make_flat(path: Path, say: Sentences) -> None:
    places = ("heading", "paragraph", "footnote", "item", "cell")
    texts = {place: say.seen(place) for place in places}
    path.write_text(FLAT.replace("{deleted}", say.unseen("deletion")).replace("{words}", WORDS).format(**texts))


SOURCES: dict[str, tuple[str, Make]] = {
    "text": (".fodt", make_flat), "sheet": (".xlsx", make_xlsx), "show": (".pptx", make_pptx)
}  # fmt: skip


def convert(folder: Path, each: int) -> Iterator[tuple[str, Made]]:
    """Files that LibreOffice has made of the same sources, with what the sources hold."""
    with tempfile.TemporaryDirectory() as work:
        for kind, (suffix, make) in SOURCES.items():
            made: dict[str, Made] = {}
            for number in range(each):
                made[f"{kind}{number}"] = Made()
                make(Path(work) / f"{kind}{number}{suffix}", Sentences(f"{kind} {number}", made[f"{kind}{number}"]))
            for target in CONVERTED[kind]:
                files = [str(Path(work) / f"{name}{suffix}") for name in made]
                home = f"-env:UserInstallation=file://{work}/home"
                out = folder / f"office-{kind}-{target}"
                command = [str(SOFFICE), home, "--headless", "--convert-to", target, "--outdir", str(out), *files]
                subprocess.run(command, check=True, capture_output=True, timeout=500)
                for name, one in made.items():
                    yield f"{out.name}/{name}.{target}", _as_converted(one, kind, target)


def _as_converted(made: Made, kind: str, target: str) -> Made:
    """What the program itself does is no fault of the reader: it shows deleted text where a format has no tracked
    changes, leaves notes out of a plain text and of a PDF of slides, and makes a CSV of the first sheet only."""
    if f".{target}" in NOT_READ:
        return Made(unseen=[*made.seen, *made.unseen], reason=NOT_READ[f".{target}"])
    left_out = {"sheet csv": "the second sheet", "show pdf": "the notes", "text txt": "the footnote"}
    place = left_out.get(f"{kind} {target}", "nothing")
    shows_deleted = kind == "text" and target in ("html", "epub", "pdf", "txt")
    return Made([text for text in made.seen if place not in text], [] if shows_deleted else made.unseen)


# ---- the table


def make_all(folder: Path, files: int) -> dict[str, Made]:
    converted = sum(map(len, CONVERTED.values())) if SOFFICE else 0
    each = -(-files // (len(MAKERS) + converted))
    found: dict[str, Made] = dict(convert(folder, each)) if SOFFICE else {}
    for suffix, make in MAKERS.items():
        (folder / suffix[1:]).mkdir(exist_ok=True)
        for number in range(each):
            made = found[f"{suffix[1:]}/{number}{suffix}"] = Made(reason=NOT_READ.get(suffix))
            make(folder / f"{suffix[1:]}/{number}{suffix}", Sentences(f"{suffix} {number}", made))
    return found


def read_s(path: Path) -> float:
    """Processor time to read a file alone, without what is inside it."""
    data = io.BytesIO(path.read_bytes())
    started = time.process_time()
    with contextlib.suppress(UnreadableSource):
        formats.read(data, name=path.name, beat=lambda _: None)
    return time.process_time() - started


def faults(made: Made, text: str, reasons: set[str | None]) -> list[str]:
    flat = " ".join(text.split())
    found = [f"not found: {sentence}" for sentence in made.seen if made.reason is None and sentence not in flat]
    found += [f"found: {sentence}" for sentence in made.unseen if sentence in flat]
    found += [f"rubbish: {match[0][:40]}" for match in [RUBBISH.search(text)] if match]
    return found if reasons <= {made.reason, "portfolio"} else [*found, f"state: {reasons}, not {made.reason}"]


def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder))
        made = make_all(shop.docs, files)
        shop.ingest()
        texts, tokens = defaultdict(list), Counter[str]()
        for row in shop.rows():
            texts[row["path"].partition("#")[0]].append(row["text"])
            tokens[row["path"].partition("#")[0]] += row["token_count"]
        reasons: dict[str, set[str | None]] = defaultdict(set)
        for path, document in shop.documents().items():
            reasons[path.partition("#")[0]].add(document["reason"])
        told = report(shop.docs, made, {name: "\n".join(parts) for name, parts in texts.items()}, tokens, reasons)
    print("\n".join(told))


def report(
    folder: Path,
    made: dict[str, Made],
    texts: dict[str, str],
    tokens: Counter[str],
    reasons: dict[str, set[str | None]],
) -> list[str]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in made:
        kinds[name.partition("/")[0]].append(name)
    lines = [f"{'format':<20} {'files':>5} {'seconds':>8} {'tokens':>8} {'wrong':>5}"]
    wrong: list[str] = []
    for kind, names in sorted(kinds.items()):
        bad = {name: found for name in names if (found := faults(made[name], texts.get(name, ""), reasons[name]))}
        wrong += [
            f"{name}: {found[0]}" + (f" and {len(found) - 1} more" if found[1:] else "") for name, found in bad.items()
        ]
        seconds = sum(read_s(folder / name) for name in names)
        count = sum(tokens[name] for name in names)
        lines.append(f"{kind:<20} {len(names):>5} {seconds:>8.2f} {count:>8,} {len(bad):>5}")
    office = "with files by LibreOffice" if SOFFICE else "without LibreOffice"
    return [*lines, *wrong, f"{len(made)} files, {office}: {len(wrong)} wrong"]


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:] if text.isdecimal()]
    main(numbers[0] if numbers else FILES)
