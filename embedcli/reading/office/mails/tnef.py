"""What Outlook packs into the `winmail.dat` of a mail (TNEF) -> its text, or its page, and what is attached.

In: the bytes of the file. Out: what is in it as far as it goes; nothing of a file that is none. Not here: the mail that
has it (mail.py), pages (html.py), rich text (rtf.py).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from embedcli.errors import UnreadableSource
from embedcli.reading.office.mails import properties as of
from embedcli.reading.office.rtf import rtf_text, unpacked_rtf
from embedcli.reading.text.declared import decode_declared, decode_page
from embedcli.records import Beat

MAGIC = b"\x78\x9f\x3e\x22"

MOST_NESTING = 20

_CODE_PAGE, _BODY, _MESSAGE = 0x9007, 0x800C, 0x9003
_SUBJECT, _SENDER, _SENT, _RECIPIENTS = 0x8004, 0x8000, 0x8005, 0x9004
_FILE_BEGINS, _TITLE, _CONTENT, _FILE = 0x9002, 0x8010, 0x800F, 0x9005
_OBJECT, _CLASS_ID_BYTES = 0x0D, 16
_LONG = frozenset({0x1E, 0x1F, 0x102, _OBJECT})
"""Kinds of properties that say how long they are: texts, bytes, objects."""
_SIZES = {0x05: 8, 0x06: 8, 0x07: 8, 0x14: 8, 0x40: 8, 0x48: 16}


_Properties: TypeAlias = "dict[str, tuple[int, bytes]]"


@dataclass(slots=True)
class Tnef:
    """What is in a `winmail.dat`: the message's head, and text, or the page of HTML that it is; the attached files and
    messages."""

    head: dict[str, str] = field(default_factory=dict)
    text: str = ""
    page: str = ""
    files: list[tuple[str, bytes]] = field(default_factory=list)
    messages: list[Tnef] = field(default_factory=list)


def opened_tnef(data: bytes, beat: Beat, *, code_page: str = "cp1252", depth: int = 0) -> Tnef:
    """The message in a stream of TNEF, as far as it goes; an empty one where it is none."""
    found = Tnef()
    if not data.startswith(MAGIC):
        return found
    beat(0)
    for name, value in _attributes(data):
        if name == _CODE_PAGE and len(value) >= 4:
            code_page = f"cp{struct.unpack_from('<I', value)[0]}"
        elif name == _BODY:
            found.text = found.text or _text(0x1E, value, code_page)
        elif name == _MESSAGE:
            properties, _ = _properties(value)
            found.head |= {key: text for key, text in _head(properties, code_page).items() if text.strip()}
            _add_body(found, properties, code_page, beat)
        elif name in _HEAD:
            found.head = {**_HEAD[name](value, code_page), **found.head}
        elif name == _FILE_BEGINS:
            found.files.append(("", b""))
        elif name == _TITLE and found.files:
            found.files[-1] = (found.files[-1][0] or _text(0x1E, value, code_page), found.files[-1][1])
        elif name == _CONTENT and found.files:
            found.files[-1] = (found.files[-1][0], value)
        elif name == _FILE and found.files:
            found.files[-1] = _file(found.files[-1], _properties(value)[0], code_page)
    files = [(" ".join(name.split()) or "attachment", content) for name, content in found.files if content]
    inner = [content for _, content in files if content.startswith(MAGIC) and depth < MOST_NESTING]
    found.messages = [opened_tnef(content, beat, code_page=code_page, depth=depth + 1) for content in inner]
    found.files = [file for file in files if file[1] not in inner]
    return found


def _head(properties: _Properties, code_page: str) -> dict[str, str]:
    def text(name: str) -> str:
        return _text(*properties[name], code_page) if name in properties else ""

    sent = properties.get(of.SENT) or properties.get(of.DELIVERED) or (0, b"")
    return {
        "Subject": text(of.SUBJECT),
        "From": of.shown_sender(text(of.SENDER), text(of.SENDER_SMTP) or text(of.SENDER_ADDRESS)),
        "To": text(of.TO),
        "Cc": text(of.CC),
        "Date": of.shown_time(int.from_bytes(sent[1], "little")),
    }


def _subject(value: bytes, code_page: str) -> dict[str, str]:
    return {"Subject": _text(0x1E, value, code_page)}


def _sender(value: bytes, code_page: str) -> dict[str, str]:
    """A name and an address, whose lengths stand before them."""
    if len(value) < 8:
        return {}
    _kind, _size, name_bytes, address_bytes = struct.unpack_from("<HHHH", value)
    name, address = value[8 : 8 + name_bytes], value[8 + name_bytes : 8 + name_bytes + address_bytes]
    return {"From": of.shown_sender(_text(0x1E, name, code_page), _text(0x1E, address, code_page).partition(":")[2])}


def _sent(value: bytes, _code_page: str) -> dict[str, str]:
    try:
        return {"Date": datetime(*struct.unpack_from("<5H", value)).isoformat(" ", "minutes")}
    except (struct.error, ValueError):
        return {}


def _recipients(value: bytes, code_page: str) -> dict[str, str]:
    """Rows of properties, one for each person; nobody else sees those of the third kind."""
    names: dict[int, list[str]] = {1: [], 2: []}
    place = 4
    while place < len(value):
        row, place = _properties(value, place)
        kind = int.from_bytes(row.get(of.RECIPIENT_KIND, (0, b""))[1], "little")
        if kind in names and of.RECIPIENT in row:
            names[kind].append(_text(*row[of.RECIPIENT], code_page))
    return {key: "; ".join(names[kind]) for key, kind in (("To", 1), ("Cc", 2)) if names[kind]}


_HEAD: dict[int, Callable[[bytes, str], dict[str, str]]] = {
    _SUBJECT: _subject,
    _SENDER: _sender,
    _SENT: _sent,
    _RECIPIENTS: _recipients,
}
"""The attributes that say what the properties of a message may say too."""


def _add_body(found: Tnef, properties: _Properties, code_page: str, beat: Beat) -> None:
    if of.BODY in properties:
        found.text = found.text or _text(*properties[of.BODY], code_page)
    with contextlib.suppress(UnreadableSource):
        if of.HTML in properties:
            kind, value = properties[of.HTML]
            found.page = decode_page(value) if kind == 0x102 else _text(kind, value, code_page)
        elif of.RTF in properties and not found.text.strip():
            found.text = rtf_text(unpacked_rtf(properties[of.RTF][1]), beat)


def _file(file: tuple[str, bytes], properties: _Properties, code_page: str) -> tuple[str, bytes]:
    """The file with what its properties add; a picture that the text itself shows is none."""
    names = [_text(*properties[key], code_page) for key in (of.FILE_NAME, of.SHORT_NAME) if key in properties]
    name = next(filter(None, names), file[0])
    if of.CONTENT_ID in properties and name.lower().endswith(of.PICTURES):
        return name, b""
    kind, content = properties.get(of.CONTENT, (0, b""))
    return name, file[1] or (content[_CLASS_ID_BYTES:] if kind == _OBJECT else content)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(name, value) of each attribute: its level, name, kind and length stand before it, a sum of its bytes behind."""
    place = 6
    while place + 9 <= len(data):
        _level, name, _kind, size = struct.unpack_from("<BHHI", data, place)
        yield name, data[place + 9 : place + 9 + size]
        place += 9 + size + 2


def _properties(data: bytes, place: int = 0) -> tuple[_Properties, int]:
    """(kind, value) of each property by its id, and where their list ends; of several values the first. Torn data give
    those before the tear."""
    found: _Properties = {}
    try:
        (most,), place = struct.unpack_from("<I", data, place), place + 4
        for _ in range(most):
            kind, number = struct.unpack_from("<HH", data, place)
            place = _behind_name(data, place + 4, is_named=number >= 0x8000)
            several, kind = kind & 0x1000, kind & 0x0FFF
            count = 1
            if several or kind in _LONG:
                (count,), place = struct.unpack_from("<I", data, place), place + 4
            for _ in range(count):
                size = _SIZES.get(kind, 4)
                if kind in _LONG:
                    (size,), place = struct.unpack_from("<I", data, place), place + 4
                if place + size > len(data):
                    return found, len(data)
                found.setdefault(f"{number:04X}", (kind, data[place : place + size]))
                place += size + -size % 4
    except struct.error:
        return found, len(data)
    return found, place


def _behind_name(data: bytes, place: int, *, is_named: bool) -> int:
    """Where the value of a property begins that may have a name: behind a GUID, and a number or a text."""
    if not is_named:
        return place
    is_text, size = struct.unpack_from("<II", data, place + 16)
    return place + 24 + (size + -size % 4 if is_text else 0)


def _text(kind: int, value: bytes, code_page: str) -> str:
    if kind == 0x1F:
        return value.decode("utf-16-le", "replace").rstrip("\0")
    narrow = value.rstrip(b"\0")
    with contextlib.suppress(UnreadableSource):
        return decode_declared(narrow, code_page) if narrow else ""
    return ""
