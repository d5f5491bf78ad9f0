"""Which reader gets which file, and what headings become sections."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import time

import pytest
from pdf_files import lines, pdf

from embedcli.errors import UnreadableSource
from embedcli.fingerprints import READ_VERSION
from embedcli.reading.formats import read
from embedcli.records import SKIP_REASONS, Document
from tests.office_files import zipped

MARKDOWN = """---
title: settings, no heading
---
# The `Project`

```sh
# no heading
```

## Install ##

1. Windows
----------

### On [Linux](https://example.org)

~~~~
# no heading
~~~
## none either
~~~~

- a list
---

> a quote
===

#not a heading
    # code
#

Usage
=====
"""

RESTRUCTURED = """=======
 Title
=======

First
-----

A paragraph of
two lines
---------

::

    Code
    ====

Deeper
~~~~~~

目次
----

Second
------
Third
-----
text
"""


def read_bytes(data: bytes, name: str) -> Document:
    return read(io.BytesIO(data), name=name, beat=lambda page: None)


def reason_of(data: bytes, name: str) -> str:
    with pytest.raises(UnreadableSource) as caught:
        read_bytes(data, name)
    return caught.value.reason


def paths(document: Document) -> list[str]:
    return [path for _, path in document.sections]


def test_markdown_headings_become_sections_and_the_first_of_them_the_title() -> None:
    document = read_bytes(MARKDOWN.encode(), "README.md")
    assert document.title == "The Project"
    assert paths(document) == [
        "The Project",
        "The Project > Install",
        "The Project > 1. Windows",
        "The Project > 1. Windows > On Linux",
        "Usage",
    ]


def test_section_offsets_point_at_the_line_of_the_heading() -> None:
    document = read_bytes(MARKDOWN.replace("\n", "\r\n").encode(), "README.MD")
    starts = [document.text[offset:].split("\n", 1)[0] for offset, _ in document.sections]
    assert starts == [
        "# The `Project`",
        "## Install ##",
        "1. Windows",
        "### On [Linux](https://example.org)",
        "Usage",
    ]


def test_restructured_headings_are_ranked_by_their_first_use() -> None:
    document = read_bytes(RESTRUCTURED.encode(), "index.rst")
    assert document.title == "Title"
    assert paths(document) == [
        "Title",
        "Title > First",
        "Title > First > Deeper",
        "Title > 目次",
        "Title > Second",
        "Title > Third",
    ]
    assert document.text[document.sections[1][0] :].startswith("First\n-----")


def test_other_text_has_no_sections_and_no_title() -> None:
    assert read_bytes(b"# a comment\nx = 1\n", "module.py") == Document("# a comment\nx = 1\n")


def test_a_markdown_file_without_a_first_level_has_no_title() -> None:
    document = read_bytes(b"## Part\ntext\n", "a.markdown")
    assert (document.title, paths(document)) == (None, ["Part"])


def test_a_pdf_is_known_by_its_content_whatever_its_name() -> None:
    assert read_bytes(pdf(lines(b"From a PDF")), "notes.txt").text == "From a PDF"
    assert read_bytes(pdf(lines(b"From a PDF")), "noname").pages == ((1, 0),)


def test_a_pdf_may_begin_late() -> None:
    assert read_bytes(b"\r\nmail header\r\n" + pdf(lines(b"Late")), "late.pdf").text == "Late"


def test_a_text_about_pdfs_is_text() -> None:
    text = "Every such file begins with %PDF-1.7.\n"
    assert read_bytes(text.encode(), "about.txt").text == text


def test_a_pdf_that_is_a_web_page_inside_is_damaged() -> None:
    assert reason_of(b"<html><body>Please log in</body></html>", "report.pdf") == "damaged"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.pdf", "a"])
def test_no_bytes_are_empty_under_every_name(name: str) -> None:
    assert reason_of(b"", name) == "empty"


@pytest.mark.parametrize("data", [b" \n\t\r\n", b"\xef\xbb\xbf", "\u3000\u00a0\u00ad".encode(), b"\x1a"])
def test_what_is_blank_after_the_clean_up_is_empty(data: bytes) -> None:
    assert reason_of(data, "blank.txt") == "empty"


ARCHIVES = {
    "zip": zipped({"readme.txt": "text"}),
    "torn zip": b"PK\x03\x04\x14\x00" + bytes(100),
    "gz": gzip.compress(b"text"),
    "bz2": bz2.compress(b"text"),
    "xz": lzma.compress(b"text"),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(30),
    "rar": b"Rar!\x1a\x07\x01\x00" + bytes(30),
    "tar": b"name" + bytes(253) + b"ustar\x0000" + bytes(248),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_are_skipped_by_that_name_and_not_as_binary(kind: str) -> None:
    for name in ("a.zip", "a.tar.gz", "a.txt", "a"):
        reason = reason_of(ARCHIVES[kind], name)
        assert reason == "archive"
        assert reason in SKIP_REASONS


def test_documents_of_formats_that_are_not_read_are_skipped_by_the_name_of_their_format() -> None:
    assert reason_of(zipped({"Index/Document.iwa": "x"}), "a.pages") == "unsupported"
    assert reason_of(b"AT&TFORM\0\0\0\x10DJVU" + bytes(100), "a.djvu") == "unsupported"
    assert read_bytes(b"ssh-ed25519 AAAA", "a.key").text == "ssh-ed25519 AAAA"


def test_a_text_that_begins_like_an_archive_is_text() -> None:
    for text in (
        "BZh is no word.",
        "MSCF stands for cabinets.",
        "LZIP packs.",
        "7z and Rar! pack too.",
        "PK is short.",
    ):
        assert read_bytes(text.encode(), "a.txt").text == text


def test_a_table_of_text_under_the_name_of_a_workbook_is_a_table() -> None:
    assert read_bytes(b"Part\tTorque\nBolt\t12\n", "a.xls").text == "Part: Bolt; Torque: 12"
    assert read_bytes(b'<?xml version="1.0"?><Row><Cell>Bolt</Cell></Row>', "a.xls").text == "Row.Cell: Bolt"


@pytest.mark.parametrize("suffix", ["docx", "docm", "xlsx", "xlsb", "pptx", "odt", "ods", "odp", "epub"])
def test_an_office_file_that_is_none_inside_is_damaged(suffix: str) -> None:
    for data in (b"<html>Please log in</html>", ARCHIVES["torn zip"], ARCHIVES["zip"]):
        assert reason_of(data, f"a.{suffix}") == "damaged"


def test_text_is_announced_before_it_is_read() -> None:
    beats: list[int] = []
    read(io.BytesIO(b"text"), name="a.txt", beat=beats.append)
    assert beats == [0]


def test_text_needs_no_pdf_library() -> None:
    code = (
        "import io, sys; from embedcli.reading.formats import read;"
        "read(io.BytesIO(b'# a'), name='a.md', beat=print);"
        "sys.exit(bool({'pypdfium2', 'pypdf', 'chardet', 'python_calamine', 'selectolax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["a.md", "a.rst"])
@pytest.mark.parametrize(
    "hostile", ["=\n", "a\n=\n", "[", "[](", "# " + "[" * 300 + "\n", "`", "```\n", " ", "---\n", "#"]
)
def test_time_is_linear_in_hostile_markup(name: str, hostile: str) -> None:
    data = b"---\n" + hostile.encode() * (300_000 // len(hostile))
    start_s = time.process_time()
    read_bytes(data, name)
    assert time.process_time() - start_s < 30


def test_memory_errors_are_not_caught() -> None:
    class NoMemory(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if size in (-1, None):
                raise MemoryError
            return super().read(size)

    with pytest.raises(MemoryError):
        read(NoMemory(b"text"), name="a.txt", beat=lambda page: None)


def test_the_version_of_the_readers_is_a_number() -> None:
    assert READ_VERSION == 4
