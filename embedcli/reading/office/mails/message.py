"""A mail that Outlook saved (.msg) -> a Document.

In: the streams of a compound file. Out: subject, from, to, date as a head; the body a person sees; messages inside it;
the names of attachments. `message_attachments` gives the attached files themselves. Not here: compound files (ole.py),
pages (html.py), rich text (rtf.py), mails as the internet has them (mail.py), what Outlook packs into those (tnef.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from embedcli.reading.office.html import add_page
from embedcli.reading.office.mails import properties as of
from embedcli.reading.office.ole import CompoundFile
from embedcli.reading.office.rtf import rtf_text, unpacked_rtf
from embedcli.reading.text.blocks import LINE, Blocks
from embedcli.reading.text.declared import decode_declared, decode_page
from embedcli.records import Beat, Document

MOST_NESTING = 20
PROPERTIES = "__properties_version1.0"
INNER = f"__substg1.0_{of.CONTENT}000D"


def read_message(file: CompoundFile, beat: Beat) -> Document:
    """The document in a message. Raises UnreadableSource."""
    blocks = Blocks()
    _add_message(blocks, file, "", beat, depth=0)
    return replace(blocks.document(title=_string(file, "", of.SUBJECT)), members=tuple(message_attachments(file)))


def message_attachments(file: CompoundFile, folder: str = "", depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each file attached to the message or to one inside it; pictures in its text are none."""
    for attached in _attachment_folders(file, folder):
        inner = f"{attached}/{INNER}"
        if inner in file and depth < MOST_NESTING:
            yield from message_attachments(file, inner, depth + 1)
        elif _is_file(file, attached):
            yield _file_name(file, attached), file.read(f"{attached}/__substg1.0_{of.CONTENT}0102")


def _add_message(blocks: Blocks, file: CompoundFile, folder: str, beat: Beat, *, depth: int) -> None:
    beat(0)
    head = {
        "Subject": _string(file, folder, of.SUBJECT),
        "From": _sender(file, folder),
        "To": _string(file, folder, of.TO),
        "Cc": _string(file, folder, of.CC),
        "Date": _date(file, folder),
    }
    for name, value in head.items():
        if value.strip():
            blocks.add(f"{name}: {' '.join(value.split())}", gap=LINE)
    _add_body(blocks, file, folder, beat)
    names = []
    for attached in _attachment_folders(file, folder):
        inner = f"{attached}/{INNER}"
        if inner in file and depth < MOST_NESTING:
            blocks.add("Message inside:")
            _add_message(blocks, file, inner, beat, depth=depth + 1)
        elif _is_file(file, attached):
            names.append(_file_name(file, attached))
    if names:
        blocks.add(f"Attachments: {', '.join(names)}")


def _add_body(blocks: Blocks, file: CompoundFile, folder: str, beat: Beat) -> None:
    """Outlook makes the plain body out of the page, so it says the same; the others only where it is missing."""
    plain = _string(file, folder, of.BODY)
    if plain.strip():
        blocks.add(plain)
        return
    page = file.read(_path(folder, f"__substg1.0_{of.HTML}0102")) or _string(file, folder, of.HTML).encode()
    count = len(blocks)
    if page:
        add_page(blocks, decode_page(page), beat)
    if len(blocks) == count:
        blocks.add(rtf_text(unpacked_rtf(file.read(_path(folder, f"__substg1.0_{of.RTF}0102"))), beat))


def _sender(file: CompoundFile, folder: str) -> str:
    name = _string(file, folder, of.SENDER)
    address = _string(file, folder, of.SENDER_SMTP) or _string(file, folder, of.SENDER_ADDRESS)
    return of.shown_sender(name, address)


def _date(file: CompoundFile, folder: str) -> str:
    """When it was sent, in UTC."""
    fixed = _fixed(file, folder)
    return of.shown_time(fixed.get(of.SENT) or fixed.get(of.DELIVERED) or 0)


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
    has_content = f"{folder}/__substg1.0_{of.CONTENT}0102" in file
    in_text = bool(_string(file, folder, of.CONTENT_ID))
    name = _file_name(file, folder).lower()
    return has_content and not (in_text and name.endswith(of.PICTURES))


def _file_name(file: CompoundFile, folder: str) -> str:
    name = _string(file, folder, of.FILE_NAME) or _string(file, folder, of.SHORT_NAME)
    return " ".join(name.split()) or "attachment"


def _string(file: CompoundFile, folder: str, name: str) -> str:
    """A property of text: in UTF-16, or in the code page that the message names."""
    wide = file.read(_path(folder, f"__substg1.0_{name}001F"))
    if wide:
        return wide.decode("utf-16-le", "replace").rstrip("\0")
    narrow = file.read(_path(folder, f"__substg1.0_{name}001E")).rstrip(b"\0")
    code_page = _fixed(file, "").get(of.CODE_PAGE, 0) & 0xFFFFFFFF
    return decode_declared(narrow, "utf-8" if code_page == 65001 else f"cp{code_page}") if narrow else ""


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
