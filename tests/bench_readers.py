"""What reading costs on one core: a table, no test.

In: folders or files, PDF and text. Out: pages/s of PDFs read whole (text, clean-up, detectors) beside pdfium's own text
call, MB/s of text files decoded and cleaned, processor time. Run: `PYTHONPATH=. python tests/bench_readers.py DOCS...`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium

from embedcli.errors import UnreadableSource
from embedcli.reading import formats


def main(arguments: list[str]) -> None:
    found = [path for name in arguments for path in sorted([Path(name), *Path(name).rglob("*")]) if path.is_file()]
    pdfs = [path for path in found if path.suffix == ".pdf"]
    texts = [path for path in found if path.suffix != ".pdf"]
    report_pdfs(pdfs)
    report_texts(texts)


def report_pdfs(paths: list[Path]) -> None:
    started = time.process_time()
    pages = sum(text_calls_alone(path) for path in paths)
    alone_s = time.process_time() - started
    failed: Counter[str] = Counter()
    started = time.process_time()
    characters = sum(len(read(path, failed)) for path in paths)
    whole_s = time.process_time() - started
    print(
        f"{len(paths)} PDFs, {pages:,} pages, {characters:,} characters: pdfium alone {pages / alone_s:.0f} pages/s,"
        f" read whole {pages / whole_s:.0f} pages/s; unreadable {dict(failed)}"
    )


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


def report_texts(paths: list[Path]) -> None:
    failed: Counter[str] = Counter()
    size_bytes = sum(path.stat().st_size for path in paths)
    started = time.process_time()
    characters = sum(len(read(path, failed)) for path in paths)
    seconds = time.process_time() - started
    print(
        f"{len(paths)} text files, {size_bytes / 1e6:.1f} MB, {characters:,} characters:"
        f" {size_bytes / 1e6 / seconds:.1f} MB/s; unreadable {dict(failed)}"
    )


def read(path: Path, failed: Counter[str]) -> str:
    with path.open("rb") as file:
        try:
            return formats.read(file, name=path.name, beat=lambda page: None).text
        except UnreadableSource as error:
            failed[error.reason] += 1
            return ""


if __name__ == "__main__":
    main(sys.argv[1:])
