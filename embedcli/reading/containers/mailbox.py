"""A mailbox (.mbox) -> Records, each with the bytes of a mail, a mail at a time.

In: an open stream. Out: a Record for each mail, its id that of the message. Not here: reading a mail
(office/mails/mail.py).
"""

from __future__ import annotations

import email.parser
import re
from collections.abc import Iterator
from typing import BinaryIO

from embedcli.errors import UnreadableSource
from embedcli.reading.containers.fields import bad_line
from embedcli.records import Record, digest

MOST_MAIL_BYTES = 256 << 20
_FROM_LINE = re.compile(rb"From \S")
_HEADER_LINE = re.compile(rb"[!-9;-~]+:")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_LONGEST_LINE = 1 << 20


def mails(stream: BinaryIO) -> Iterator[Record]:
    """Raises UnreadableSource `damaged` where there is no mail inside."""
    number = 0
    for data in _raw_mails(stream):
        number += 1
        if data is None:
            yield bad_line(number, "too_large")
            continue
        data = _QUOTED_FROM.sub(rb"\1", data)
        found = digest(data)
        yield Record(_message_id(data) or f"mail-{found[:16]}", found, data=data, line=number)
    if not number:
        raise UnreadableSource("damaged", "no mail inside")


def _raw_mails(stream: BinaryIO) -> Iterator[bytes | None]:
    """The bytes of each mail without its From line; None for one too large to be held.

    A mail begins at a line `From ` after an empty one, if a header follows.
    """
    parts: list[bytes] = []
    size, begun, after_blank = 0, False, True
    from_line = b""
    while line := stream.readline(_LONGEST_LINE):
        if from_line:
            if _HEADER_LINE.match(line):
                if begun:
                    yield b"".join(parts) if size <= MOST_MAIL_BYTES else None
                parts, size, begun = [], 0, True
            else:
                parts.append(from_line)
            from_line = b""
        if after_blank and _FROM_LINE.match(line):
            from_line = line
        elif begun:
            size += len(line)
            if size <= MOST_MAIL_BYTES:
                parts.append(line)
        after_blank = not line.strip(b"\r\n")
    if begun:
        yield b"".join([*parts, from_line]) if size <= MOST_MAIL_BYTES else None


def _message_id(data: bytes) -> str:
    head = data[: data.find(b"\n\n") + 1 or 1 << 16][: 1 << 16]
    message = email.parser.BytesHeaderParser().parsebytes(head)
    return str(message.get("Message-ID") or "").strip().strip("<>").strip()
