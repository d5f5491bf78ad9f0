"""A mail that Outlook saved (.msg) -> a Document.

In: the streams of a compound file. Out: subject, from, to, date as a head; the body a person sees; messages inside it;
the names of attachments. `message_attachments` gives the attached files themselves. And `opened_tnef`: what Outlook
packs into the `winmail.dat` of other mails (TNEF), which has the same properties. Not here: compound files (ole.py),
pages (html.py), rich text (rtf.py), mails as the internet has them (mail.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from embedcli.reading.office.html import add_page
from embedcli.reading.office.ole import CompoundFile
from embedcli.reading.office.rtf import rtf_text, unpacked_rtf
from embedcli.reading.text.blocks import LINE, Blocks
from embedcli.reading.text.declared import decode_declared, decode_page
from embedcli.records import Beat, Document

MOST_NESTING = 20
PROPERTIES = "__properties_version1.0"

_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_SENDER, _SENDER_SMTP, _SENDER_ADDRESS = "0C1A", "5D01", "0C1F"
_TO, _CC = "0E04", "0E03"
_SENT, _DELIVERED = "0039", "0E06"
_FILE_NAME, _SHORT_NAME, _CONTENT, _CONTENT_ID = "3707", "3704", "3701", "3712"
_CODE_PAGE = "3FFD"
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
TNEF = b"\x78\x9f\x3e\x22"
_TNEF_CODE_PAGE, _TNEF_BODY, _TNEF_MESSAGE = 0x9007, 0x800C, 0x9003
_TNEF_FILE_BEGINS, _TNEF_TITLE, _TNEF_CONTENT, _TNEF_FILE = 0x9002, 0x8010, 0x800F, 0x9005
_TNEF_OBJECT, _CLASS_ID_BYTES = 0x0D, 16
_TNEF_LONG = frozenset({0x1E, 0x1F, 0x102, _TNEF_OBJECT})
"""Kinds of properties that say how long they are: texts, bytes, objects."""
_TNEF_SIZES = {0x05: 8, 0x06: 8, 0x07: 8, 0x14: 8, 0x40: 8, 0x48: 16}
_FILETIME_ZERO = datetime(1601, 1, 1, tzinfo=UTC)


def read_message(file: CompoundFile, beat: Beat) -> Document:
    """The document in a message. Raises UnreadableSource."""
    blocks = Blocks()
    _add_message(blocks, file, "", beat, depth=0)
    return replace(blocks.document(title=_string(file, "", _SUBJECT)), members=tuple(message_attachments(file)))


def message_attachments(file: CompoundFile) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each file attached to the message; pictures in its text and messages are none."""
    for folder in _attachment_folders(file, ""):
        if _is_file(file, folder):
            yield _file_name(file, folder), file.read(f"{folder}/__substg1.0_{_CONTENT}0102")


def _add_message(blocks: Blocks, file: CompoundFile, folder: str, beat: Beat, *, depth: int) -> None:
    beat(0)
    head = {
        "Subject": _string(file, folder, _SUBJECT),
        "From": _sender(file, folder),
        "To": _string(file, folder, _TO),
        "Cc": _string(file, folder, _CC),
        "Date": _date(file, folder),
    }
    for name, value in head.items():
        if value.strip():
            blocks.add(f"{name}: {' '.join(value.split())}", gap=LINE)
    _add_body(blocks, file, folder, beat)
    names = []
    for attached in _attachment_folders(file, folder):
        inner = f"{attached}/__substg1.0_{_CONTENT}000D"
        if inner in file and depth < MOST_NESTING:
            blocks.add("Message inside:")
            _add_message(blocks, file, inner, beat, depth=depth + 1)
        elif _is_file(file, attached):
            names.append(_file_name(file, attached))
    if names:
        blocks.add(f"Attachments: {', '.join(names)}")


def _add_body(blocks: Blocks, file: CompoundFile, folder: str, beat: Beat) -> None:
    """Outlook makes the plain body out of the page, so it says the same; the others only where it is missing."""
    plain = _string(file, folder, _BODY)
    if plain.strip():
        blocks.add(plain)
        return
    page = file.read(_path(folder, f"__substg1.0_{_HTML}0102")) or _string(file, folder, _HTML).encode()
    count = len(blocks)
    if page:
        add_page(blocks, decode_page(page), beat)
    if len(blocks) == count:
        blocks.add(rtf_text(unpacked_rtf(file.read(_path(folder, f"__substg1.0_{_RTF}0102"))), beat))


def _sender(file: CompoundFile, folder: str) -> str:
    name = _string(file, folder, _SENDER)
    address = _string(file, folder, _SENDER_SMTP) or _string(file, folder, _SENDER_ADDRESS)
    is_mail = "@" in address and address != name
    return f"{name} <{address}>" if is_mail and name else name or address


def _date(file: CompoundFile, folder: str) -> str:
    """When it was sent, in UTC."""
    fixed = _fixed(file, folder)
    ticks = fixed.get(_SENT) or fixed.get(_DELIVERED)
    if not ticks:
        return ""
    try:
        return (_FILETIME_ZERO + timedelta(microseconds=ticks // 10)).isoformat(" ", "minutes")
    except OverflowError:
        return ""


def _fixed(file: CompoundFile, folder: str) -> dict[str, int]:
    """The properties that are numbers, by their ids; their list has a head whose length depends on where it stands."""
    data = file.read(_path(folder, PROPERTIES))
    head_bytes = 32 if not folder else 24
    found = {}
    for start in range(head_bytes, len(data) - 15, 16):
        _kind, name, _flags, value = struct.unpack_from("<HHIQ", data, start)
        found[f"{name:04X}"] = value
    return found


def _attachment_folders(file: CompoundFile, folder: str) -> list[str]:
    return [_path(folder, name) for name in sorted(file.names(folder)) if name.startswith("__attach_version1.0_#")]


def _is_file(file: CompoundFile, folder: str) -> bool:
    """No picture that the text itself shows."""
    has_content = f"{folder}/__substg1.0_{_CONTENT}0102" in file
    in_text = bool(_string(file, folder, _CONTENT_ID))
    name = _file_name(file, folder).lower()
    return has_content and not (in_text and name.endswith(_PICTURES))


def _file_name(file: CompoundFile, folder: str) -> str:
    name = _string(file, folder, _FILE_NAME) or _string(file, folder, _SHORT_NAME)
    return " ".join(name.split()) or "attachment"


def _string(file: CompoundFile, folder: str, name: str) -> str:
    """A property of text: in UTF-16, or in the code page that the message names."""
    wide = file.read(_path(folder, f"__substg1.0_{name}001F"))
    if wide:
        return wide.decode("utf-16-le", "replace").rstrip("\0")
    narrow = file.read(_path(folder, f"__substg1.0_{name}001E")).rstrip(b"\0")
    code_page = _fixed(file, "").get(_CODE_PAGE, 0) & 0xFFFFFFFF
    return decode_declared(narrow, "utf-8" if code_page == 65001 else f"cp{code_page}") if narrow else ""


@dataclass(slots=True)
class Tnef:
    """What is in a `winmail.dat`: the message's text, or the page of HTML that it is; the attached files."""

    text: str = ""
    page: str = ""
    files: list[tuple[str, bytes]] = field(default_factory=list)


def opened_tnef(data: bytes, beat: Beat) -> Tnef:
    """The text and the files in a stream of TNEF, as far as it goes; nothing where it is none."""
    found, code_page = Tnef(), "cp1252"
    if not data.startswith(TNEF):
        return found
    for name, value in _tnef_attributes(data):
        if name == _TNEF_CODE_PAGE and len(value) >= 4:
            code_page = f"cp{struct.unpack_from('<I', value)[0]}"
        elif name == _TNEF_BODY:
            found.text = found.text or _tnef_text(0x1E, value, code_page)
        elif name == _TNEF_MESSAGE:
            _add_tnef_body(found, _tnef_properties(value), code_page, beat)
        elif name == _TNEF_FILE_BEGINS:
            found.files.append(("", b""))
        elif name == _TNEF_TITLE and found.files:
            found.files[-1] = (found.files[-1][0] or _tnef_text(0x1E, value, code_page), found.files[-1][1])
        elif name == _TNEF_CONTENT and found.files:
            found.files[-1] = (found.files[-1][0], value)
        elif name == _TNEF_FILE and found.files:
            found.files[-1] = _tnef_file(found.files[-1], _tnef_properties(value), code_page)
    found.files = [(" ".join(name.split()) or "attachment", content) for name, content in found.files if content]
    return found


def _add_tnef_body(found: Tnef, properties: dict[str, tuple[int, bytes]], code_page: str, beat: Beat) -> None:
    if _BODY in properties:
        found.text = found.text or _tnef_text(*properties[_BODY], code_page)
    if _HTML in properties:
        kind, value = properties[_HTML]
        found.page = decode_page(value) if kind == 0x102 else _tnef_text(kind, value, code_page)
    elif _RTF in properties and not found.text.strip():
        found.text = rtf_text(unpacked_rtf(properties[_RTF][1]), beat)


def _tnef_file(file: tuple[str, bytes], properties: dict[str, tuple[int, bytes]], code_page: str) -> tuple[str, bytes]:
    """The file with what its properties add; a picture that the text itself shows is none."""
    names = [_tnef_text(*properties[key], code_page) for key in (_FILE_NAME, _SHORT_NAME) if key in properties]
    name = next(filter(None, names), file[0])
    if _CONTENT_ID in properties and name.lower().endswith(_PICTURES):
        return name, b""
    kind, content = properties.get(_CONTENT, (0, b""))
    return name, file[1] or (content[_CLASS_ID_BYTES:] if kind == _TNEF_OBJECT else content)


def _tnef_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(name, value) of each attribute: its level, name, kind and length stand before it, a sum of its bytes behind."""
    place = 6
    while place + 9 <= len(data):
        _level, name, _kind, size = struct.unpack_from("<BHHI", data, place)
        yield name, data[place + 9 : place + 9 + size]
        place += 9 + size + 2


def _tnef_properties(data: bytes) -> dict[str, tuple[int, bytes]]:
    """(kind, value) of each property by its id; of several values the first. Torn data give those before the tear."""
    found: dict[str, tuple[int, bytes]] = {}
    place = 4
    try:
        for _ in range(struct.unpack_from("<I", data)[0]):
            kind, number = struct.unpack_from("<HH", data, place)
            place = _behind_tnef_name(data, place + 4, is_named=number >= 0x8000)
            several, kind = kind & 0x1000, kind & 0x0FFF
            count = 1
            if several or kind in _TNEF_LONG:
                (count,), place = struct.unpack_from("<I", data, place), place + 4
            for _ in range(count):
                size = _TNEF_SIZES.get(kind, 4)
                if kind in _TNEF_LONG:
                    (size,), place = struct.unpack_from("<I", data, place), place + 4
                if place + size > len(data):
                    return found
                found.setdefault(f"{number:04X}", (kind, data[place : place + size]))
                place += size + -size % 4
    except struct.error:
        pass
    return found


def _behind_tnef_name(data: bytes, place: int, *, is_named: bool) -> int:
    """Where the value of a property begins that may have a name: behind a GUID, and a number or a text."""
    if not is_named:
        return place
    is_text, size = struct.unpack_from("<II", data, place + 16)
    return place + 24 + (size + -size % 4 if is_text else 0)


def _tnef_text(kind: int, value: bytes, code_page: str) -> str:
    if kind == 0x1F:
        return value.decode("utf-16-le", "replace").rstrip("\0")
    narrow = value.rstrip(b"\0")
    return decode_declared(narrow, code_page) if narrow else ""


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
