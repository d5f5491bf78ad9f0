"""A book is read chapter by chapter in reading order."""

from __future__ import annotations

import pytest

from embedcli.errors import UnreadableSource
from tests.office_files import read_bytes, zipped

CONTAINER = '<container xmlns="c"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
NCX = """<ncx xmlns="n"><docTitle><text>T</text></docTitle><navMap><navPoint><navLabel><text>Second
    part</text></navLabel><content src="text/b%20b.xhtml#x"/></navPoint></navMap></ncx>"""
NAV = """<html xmlns="http://www.w3.org/1999/xhtml"><nav><ol><li><a href="text/a.xhtml">First <i>part</i></a></li>
    </ol></nav></html>"""


def page(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/>'
        f'<script src="x"/></head><body>{body}</body></html>'
    )


def epub(**more: str) -> bytes:
    book = """<package xmlns="o" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The pump</dc:title>
        </metadata><manifest><item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/>
        <item id="b" href="text/b%20b.xhtml" media-type="application/xhtml+xml"/>
        <item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
        <item id="x" href="toc.ncx" media-type="application/x-dtbncx+xml"/>
        <item id="i" href="i.png" media-type="image/png"/>
        </manifest><spine toc="x"><itemref idref="n"/><itemref idref="b"/><itemref idref="a"/><itemref idref="gone"/>
        </spine></package>"""
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OEBPS/text/a.xhtml": page("<p>In the end.</p>"),
            "OEBPS/text/b b.xhtml": page("<h1>Begin</h1><p>In the<a id='p1'/> beginning.</p>"),
            "OEBPS/book.opf": book,
            "OEBPS/nav.xhtml": NAV,
            "OEBPS/toc.ncx": NCX,
            **more,
        }
    )


def test_chapters_come_in_the_order_of_the_spine_with_their_titles() -> None:
    document = read_bytes(epub(), "a.epub")
    assert document.title == "The pump"
    assert document.text == "Begin\n\nIn the beginning.\n\nIn the end."
    assert document.sections == ((0, "Begin"), (document.text.index("In the end"), "First part"))


def test_a_chapter_without_a_heading_has_the_name_that_the_older_contents_give_it() -> None:
    data = epub(**{"OEBPS/nav.xhtml": "<nav/>", "OEBPS/text/b b.xhtml": page("<p>Only text.</p>")})
    assert [path for _, path in read_bytes(data, "a.epub").sections] == ["Second part"]


def test_a_book_with_rights_management_is_password_and_one_with_only_fonts_encrypted_is_not() -> None:
    def encryption(name: str) -> str:
        return f'<encryption xmlns:e="e"><e:CipherReference URI="{name}"/></encryption>'

    fonts = epub(**{"META-INF/encryption.xml": encryption("OEBPS/font.otf")})
    assert read_bytes(fonts, "a.epub").text.startswith("Begin")
    for data, reason in (
        (epub(**{"META-INF/encryption.xml": encryption("OEBPS/text/a.xhtml")}), "password"),
        (epub()[:900], "damaged"),
        (epub(**{"META-INF/container.xml": "<container/>"}), "damaged"),
    ):
        with pytest.raises(UnreadableSource) as caught:
            read_bytes(data, "a.epub")
        assert caught.value.reason == reason


def test_chapters_of_other_kinds_are_read_too() -> None:
    """A drawing may be a page, and a page may be listed as something else."""
    kinds = {"a.svg": "image/svg+xml", "b.xhtml": "application/xml", "c.html": "text/x-html", "d.png": "image/png"}
    items = "".join(f'<item id="{name}" href="{name}" media-type="{kind}"/>' for name, kind in kinds.items())
    spine = "".join(f'<itemref idref="{name}"/>' for name in kinds)
    book = f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>"
    pages = {"a.svg": "<svg><text>Drawn</text></svg>", "b.xhtml": page("<p>Second</p>"), "c.html": page("<p>Third</p>")}
    whole = {"META-INF/container.xml": CONTAINER.replace("OEBPS/", ""), "book.opf": book, **pages, "d.png": "PICTURE"}
    assert read_bytes(zipped(whole), "a.epub").text == "Drawn\n\nSecond\n\nThird"
    for broken in ("<svg><text>Drawn", "<svg/>"):
        assert "Second\n\nThird" in read_bytes(zipped({**whole, "a.svg": broken}), "a.epub").text
