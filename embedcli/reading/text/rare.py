"""The rare characters of a text: those that any step may have to do with.

In: a text. Out: its characters but for plain ASCII, for which most steps have no use. Not here: the steps (clean.py,
pdf/text.py).
"""

from __future__ import annotations

_ACCENTS = b"`^~"
"""An old font draws them over a letter."""
_PLAIN = bytes(code for code in (*b"\t\n\r", *range(0x20, 0x7F)) if code not in _ACCENTS)


def rare_characters(text: str) -> str:
    """In their order and as often as they occur: in most texts a search among them takes a tenth of the time.

    Bytes are deleted sooner than characters, and to find the different ones takes longer than several searches.
    """
    left = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN)
    return left.decode("utf-8", "surrogatepass")
