"""What reading costs on one core: a table, no test.

In: folders or files of any format. Out: pages/s of PDFs read whole (text, clean-up, detectors) beside pdfium's own text
call through pypdfium2, in the same process and with the same font; MB/s of every other kind of file read whole, and
beside it what its library alone takes to open or parse it; for workbooks rows/s too; processor time. Without arguments
a file of each office format is made and read.
Run: `PYTHONPATH=. python tests/bench_readers.py DOCS...`.
"""

from __future__ import annotations

import email
import io
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from xml.etree import ElementTree

import docx as python_docx
import openpyxl
import pypdfium2
import pypdfium2.raw as pdfium
import python_calamine
from pptx import Presentation
from selectolax.lexbor import LexborHTMLParser

from embedcli.errors import UnreadableSource
from embedcli.reading import formats


def main(arguments: list[str]) -> None:
    found = [path for name in arguments for path in sorted([Path(name), *Path(name).rglob("*")]) if path.is_file()]
    if not found:
        with tempfile.TemporaryDirectory() as folder:
            make_samples(Path(folder))
            report_kinds(sorted(Path(folder).iterdir()))
        return
    report_pdfs([path for path in found if path.suffix == ".pdf"])
    report_kinds([path for path in found if path.suffix != ".pdf"])


ROUNDS = 3


def report_pdfs(paths: list[Path]) -> None:
    """Several rounds, for the machine is not equally fast all the time; what only the first call of a library pays, or
    the first reader of a file, is paid before them."""
    time_of_pdfs(paths[:1])
    rounds = [time_of_pdfs(paths, whole_first=bool(number % 2)) for number in range(ROUNDS)]
    alone_s, whole_s = (sum(each) for each in zip(*((one.alone_s, one.whole_s) for one in rounds), strict=True))
    shares = ", ".join(f"{one.alone_s / one.whole_s:.3f}" for one in rounds)
    pages = rounds[0].pages * ROUNDS
    print(
        f"{len(paths)} PDFs, {rounds[0].pages:,} pages, {rounds[0].characters:,} characters:"
        f" pdfium alone {pages / alone_s:.0f} pages/s, read whole {pages / whole_s:.0f} pages/s,"
        f" {alone_s / whole_s:.3f} of it (each round: {shares}); unreadable {dict(rounds[0].failed)}"
    )


@dataclass
class PdfTimes:
    """What reading some PDFs took in both ways: processor seconds of this process."""

    pages: int = 0
    characters: int = 0
    alone_s: float = 1e-9
    whole_s: float = 1e-9
    failed: Counter[str] = field(default_factory=Counter)


def time_of_pdfs(paths: list[Path], *, whole_first: bool = False) -> PdfTimes:
    """Each file is read in both ways one after the other, first in this way and the next file first in the other: what
    the machine does besides then falls on both alike."""
    times = PdfTimes()
    for number, path in enumerate(paths):
        for is_whole in (True, False) if whole_first is (number % 2 == 0) else (False, True):
            started = time.process_time()
            if is_whole:
                times.characters += len(read(path, times.failed))
                times.whole_s += time.process_time() - started
            else:
                times.pages += text_calls_alone(path)
                times.alone_s += time.process_time() - started
    return times


def text_calls_alone(path: Path) -> int:
    """Pages whose text pdfium gave, and nothing done with it; none of a document that it cannot open."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError:
        return 0
    for number in range(len(document)):
        page = document[number]
        text = page.get_textpage()
        pdfium.FPDFText_CountChars(text.raw)
        text.get_text_bounded()
        text.close()
        page.close()
    count = len(document)
    document.close()
    return count


def report_kinds(paths: list[Path]) -> None:
    """A line for each suffix. Of a Word document the size is that of its main part unpacked."""
    for suffix in sorted({path.suffix for path in paths}):
        files = [path for path in paths if path.suffix == suffix]
        failed: Counter[str] = Counter()
        size_mb = sum(size_of(path) for path in files) / 1e6
        started = time.process_time()
        for path in files:
            alone(path)
        between = time.process_time()
        texts = [read(path, failed) for path in files]
        alone_s, whole_s = between - started, time.process_time() - between
        rows = f", {sum(text.count(chr(10)) for text in texts) / whole_s:,.0f} rows/s" if suffix in WORKBOOKS else ""
        print(
            f"{suffix or 'no suffix'}: {len(files)} files, {size_mb:.1f} MB, {sum(map(len, texts)):,} characters:"
            f" library alone {size_mb / alone_s:.1f} MB/s, read whole {size_mb / whole_s:.1f} MB/s{rows};"
            f" unreadable {dict(failed)}"
        )


WORKBOOKS = (".xlsx", ".xls", ".ods")
MAIN_PARTS = {".docx": "word/document.xml", ".odt": "content.xml"}


def size_of(path: Path) -> int:
    if path.suffix in MAIN_PARTS:
        with zipfile.ZipFile(path) as archive:
            return archive.getinfo(MAIN_PARTS[path.suffix]).file_size
    return path.stat().st_size


def alone(path: Path) -> object:
    """The least that somebody must do who wants to look into such a file."""
    data = path.read_bytes()
    if path.suffix in (".html", ".htm"):
        return LexborHTMLParser(data.decode("utf-8", "replace"))
    if path.suffix == ".eml":
        return email.message_from_bytes(data)
    if path.suffix in WORKBOOKS:
        return python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data)).get_sheet_by_index(0).to_python()
    if path.suffix in MAIN_PARTS:
        with zipfile.ZipFile(path) as archive:
            return ElementTree.fromstring(archive.read(MAIN_PARTS[path.suffix]))
    if path.suffix == ".pptx":
        return [shape.has_text_frame for slide in Presentation(path).slides for shape in slide.shapes]
    return data.decode("utf-8", "replace")


WORDS = "The torque of the bolt is given in newton metres, measured at twenty degrees with a dry thread. "


def make_samples(folder: Path) -> None:
    """A file of some megabytes in each of the formats that a company has most of."""
    word, book, show, mail = python_docx.Document(), openpyxl.Workbook(write_only=True), Presentation(), EmailMessage()
    sheet = book.create_sheet("Bolts")
    sheet.append(["Part", "Torque", "Count", "Note"])
    for number in range(40_000):
        sheet.append([f"Bolt {number}", number / 8, number, "dry thread"])
    for number in range(400):
        word.add_heading(f"Part {number}", 1)
        for _ in range(8):
            word.add_paragraph(WORDS).add_run(WORDS).bold = True
    for number in range(60):
        slide = show.slides.add_slide(show.slide_layouts[1])
        slide.shapes.title.text = f"Part {number}"
        slide.placeholders[1].text = WORDS * 5
    section = (
        f"<h2>Part</h2><p>{WORDS}<b>{WORDS}</b><a href='/part/number/7.html'>{WORDS}</a></p><ul><li>one<li>two</ul>"
    )
    page = f"<html><head><title>T</title></head><body>{section * 6_000}</body></html>"
    mail["Subject"], mail["From"] = "Offer", "anna@example.org"
    mail.set_content(WORDS * 60)
    mail.add_alternative(f"<p>{WORDS}</p>" * 60, subtype="html")
    mail.add_attachment(bytes(range(256)) * 8_000, maintype="application", subtype="pdf", filename="offer.pdf")
    plain = EmailMessage()
    plain["Subject"], plain["From"] = "Offer", "anna@example.org"
    plain.set_content("\n".join([WORDS] * 60))
    plain.add_alternative(f"<p>{WORDS}</p>" * 60, subtype="html")
    word.save(str(folder / "a.docx"))
    book.save(folder / "a.xlsx")
    show.save(str(folder / "a.pptx"))
    (folder / "a.html").write_text(page)
    (folder / "a.eml").write_bytes(mail.as_bytes())
    for number in range(100):
        (folder / f"b{number}.eml").write_bytes(plain.as_bytes())
    (folder / "a.csv").write_text(
        "part,torque,note\n" + "".join(f"Bolt {n},{n / 8},dry thread\n" for n in range(100_000))
    )
    (folder / "a.txt").write_text(f"{WORDS}\n" * 50_000)


def read(path: Path, failed: Counter[str]) -> str:
    with path.open("rb") as file:
        try:
            return formats.read(file, name=path.name, beat=lambda page: None).text
        except UnreadableSource as error:
            failed[error.reason] += 1
            return ""


if __name__ == "__main__":
    main(sys.argv[1:])
