"""Documents of before 2007: compound files, whose streams say what they hold.

In: an open file that begins like a compound file. Out: a Document, or UnreadableSource.
Not here: the file format (ole.py), other kinds of files (reading/kinds.py).
"""

from __future__ import annotations

from typing import BinaryIO

from embedcli.errors import UnreadableSource
from embedcli.reading.office.ole import CompoundFile
from embedcli.records import Beat, Document

_UNSUPPORTED_STREAMS = frozenset(
    {"worddocument", "powerpoint document", "visiodocument", "quill", "bodytext", "matost", "props", "pp40"}
)
"""Of Word, PowerPoint, Visio, Publisher, Hangul, Works and Project."""


def read_compound(file: BinaryIO, beat: Beat) -> Document:
    """By the streams at the top: a text may hold a table, and a table a text."""
    compound = CompoundFile(file.read())
    names = {name.lower() for name in compound.names()}
    if "encryptedpackage" in names:
        raise UnreadableSource("password")
    if books := [name for name in compound.names() if name.lower() in ("workbook", "book")]:
        from embedcli.reading.office.sheets import is_encrypted, read_sheets

        if is_encrypted(compound.read(books[0])):
            raise UnreadableSource("password")
        return read_sheets(file, beat=beat)
    if "__properties_version1.0" in names:
        from embedcli.reading.office.mails.message import read_message

        return read_message(compound, beat)
    if names & _UNSUPPORTED_STREAMS:
        raise UnreadableSource("unsupported", "an office format of before 2007")
    raise UnreadableSource("not_text", "a compound file that is no document")
