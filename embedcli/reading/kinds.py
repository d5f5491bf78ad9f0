"""What a file is: its first bytes say it, then its name. The table of all formats but PDF and plain text.

In: an open file and its suffix. Out: the function that reads it into a Document; None for text; UnreadableSource for
what is known and not read (`archive`, `unsupported`, `password`), and `damaged` for a file that is not what its name
says. Not here: how a format is read (the module that each function imports when it is needed, and no sooner).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from embedcli.errors import UnreadableSource
from embedcli.reading.office.zipped import ZIPPED_SUFFIXES, read_zipped
from embedcli.reading.text.clean import clean
from embedcli.reading.text.decode import decode
from embedcli.records import Beat, Document

HEAD_BYTES = 4096
MAIL_HEADERS = 4
"""As many different ones are no chance."""

Reader = Callable[[BinaryIO, Beat], Document]

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_UNSUPPORTED_BINARIES = frozenset({".one", ".djvu", ".mobi", ".azw3", ".pst", ".ost", ".dwg", ".wpd"})
"""Documents to whoever keeps them, so they are told as such and not as archives or binary files."""
_RICH_TEXT = b"{\\rtf"
_ARCHIVE = re.compile(
    rb"\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x28\xb5\x2f\xfd|MSCF\x00{4}|LZIP\x01"
    rb"|\x04\x22\x4d\x18|.{257}ustar[\x00 ]",
    re.DOTALL,
)
"""gzip, bzip2, xz, 7z, rar, zstandard, cabinet, lzip, lz4, tar."""
_PAGE_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".xht", ".shtml"})
_MISNAMED_SUFFIXES = frozenset({"", ".doc", ".xls"})
"""Reports of many programs are web pages with the name of an office file."""
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html)[\s>]", re.IGNORECASE)
_SAVED_PAGE = re.compile(
    rb"\s*(?:[!-9;-~]+:[^\n]*\n(?:[ \t][^\n]*\n)*)*?Content-Type:\s*(?:multipart/|text/html)", re.IGNORECASE
)
"""So wikis and business software export a page as a Word document, a report as a workbook."""
_XML_SUFFIXES = frozenset({".xml", ".rss", ".atom", ".svg"})
_JSON_SUFFIXES = frozenset({".json", ".geojson", ".jsonl", ".ndjson"})
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\s")
_MAILBOX = re.compile(rb"From \S[^\r\n]*\r?\n[!-9;-~]+:")
_MAIL_HEADERS = re.compile(rb"^(Received|Return-Path|Message-ID|From|To|Date|Subject|MIME-Version): ", re.M | re.I)


def reader_of(file: BinaryIO, suffix: str) -> Reader | None:
    """The reader of an open file, which is left at its beginning; `suffix` is in lower case, with its dot."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        return None
    if head.startswith(_ZIP):
        return lambda file, beat: read_zipped(file, suffix, beat)
    if head.startswith(_OLE):
        return _read_compound
    if head.startswith(_RICH_TEXT):
        return _read_rtf
    if _ARCHIVE.match(head):
        raise UnreadableSource("archive")
    if suffix in ZIPPED_SUFFIXES:
        raise UnreadableSource("damaged", f"no zip archive, as a {suffix} is")
    if suffix in _UNSUPPORTED_BINARIES and b"\0" in head:
        raise UnreadableSource("unsupported")
    if suffix in _PAGE_SUFFIXES or (suffix in _MISNAMED_SUFFIXES and _PAGE.match(head)):
        return _read_html
    if suffix in _XML_SUFFIXES or suffix in _JSON_SUFFIXES or (suffix == ".xls" and _XML.match(head)):
        return lambda file, beat: _read_structured(file.read(), suffix, beat)
    if suffix in (".fodt", ".fodp", ".fodg", ".fods"):
        return _read_flat_odf
    return _mail_reader(head, suffix)


def _mail_reader(head: bytes, suffix: str) -> Reader | None:
    """A Maildir has names without a suffix, or with flags such as `.host:2,S`."""
    if suffix in (".mhtml", ".mht") or (suffix in (".doc", ".xls") and _SAVED_PAGE.match(head)):
        return _read_saved_page
    if suffix == ".mbox" or (suffix == "" and _MAILBOX.match(head)):
        return _read_mailbox
    if suffix in (".eml", ".emlx"):
        return _read_mail
    in_maildir = suffix == "" or ":2," in suffix
    return _read_mail if in_maildir and len(set(_MAIL_HEADERS.findall(head))) >= MAIL_HEADERS else None


def _read_compound(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.compound import read_compound

    return read_compound(file, beat)


def _read_structured(data: bytes, suffix: str, beat: Beat) -> Document:
    from embedcli.reading.office import structured

    if suffix == ".svg":
        return structured.read_svg(data, beat)
    if suffix not in _JSON_SUFFIXES:
        return structured.read_xml(data, beat)
    text = clean(decode(data), pdf=False)
    return structured.read_json_lines(text) if suffix in (".jsonl", ".ndjson") else structured.read_json(text)


def _read_rtf(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.rtf import read_rtf

    return read_rtf(file.read(), beat)


def _read_flat_odf(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.odf import read_flat

    return read_flat(file, beat)


def _read_html(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.html import read_html

    return read_html(file.read(), beat)


def _read_mail(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.mails.mail import read_mail

    return read_mail(file.read(), beat)


def _read_mailbox(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.mails.mail import read_mailbox

    return read_mailbox(file.read(), beat)


def _read_saved_page(file: BinaryIO, beat: Beat) -> Document:
    from embedcli.reading.office.mails.mail import read_saved_page

    return read_saved_page(file.read(), beat)
