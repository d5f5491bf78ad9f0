"""The properties that Outlook keeps of a message and of its files (MAPI), by their numbers in hexadecimal.

In a .msg (message.py) and in a `winmail.dat` (tnef.py) they are the same, and some are shown in the same way.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

SUBJECT, BODY, HTML, RTF = "0037", "1000", "1013", "1009"
SENDER, SENDER_SMTP, SENDER_ADDRESS = "0C1A", "5D01", "0C1F"
TO, CC = "0E04", "0E03"
SENT, DELIVERED = "0039", "0E06"
FILE_NAME, SHORT_NAME, CONTENT, CONTENT_ID = "3707", "3704", "3701", "3712"
CODE_PAGE = "3FFD"
RECIPIENT, RECIPIENT_KIND = "3001", "0C15"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
"""How the names of files end that a text may show itself."""

_FILETIME_ZERO = datetime(1601, 1, 1, tzinfo=UTC)


def shown_sender(name: str, address: str) -> str:
    is_mail = "@" in address and address != name
    return f"{name} <{address}>" if is_mail and name else name or address


def shown_time(ticks: int) -> str:
    """A moment in UTC; empty for none, and for one that no calendar has."""
    try:
        return (_FILETIME_ZERO + timedelta(microseconds=ticks // 10)).isoformat(" ", "minutes") if ticks else ""
    except OverflowError:
        return ""
