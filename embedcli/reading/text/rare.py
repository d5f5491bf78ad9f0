"""The rare characters of a text: those that any step may have to do with.

In: a text. Out: its different characters but for plain ASCII, for which most steps have no use. Not here: the steps
(clean.py, pdf/text.py).
"""

from __future__ import annotations

_ACCENTS = b"`^~"
"""An old font draws them over a letter."""
_PLAIN = bytes(code for code in (*b"\t\n\r", *range(0x20, 0x7F)) if code not in _ACCENTS)


def rare_characters(text: str) -> str:
    """Each once, in any order: a search among them takes a tenth of the time of one in the text.

    Bytes are deleted sooner than a set of all characters is made, and of most texts little is left.
    """
    left = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN)
    return "".join(set(left.decode("utf-8", "surrogatepass")))
