"""What a person typed -> what is searched for.

In: a line of text. Out: a Query: the text that gets a vector, the terms, the phrases that must be there.
Not here: the vector (query_vector.py), scoring.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedcli.errors import UsageError
from embedcli.search.words import terms

_quoted = re.compile(r'"([^"]*)"|“([^”]*)”')


@dataclass(frozen=True)
class Query:
    """`text` is without quotes; `terms` are different ones, in their order; `phrases` are what stood in quotes."""

    text: str
    terms: tuple[str, ...]
    phrases: tuple[str, ...]


def parse(line: str) -> Query:
    """A quote without a second one is a letter like others. Raises UsageError where nothing is searched for, and for
    what is no text."""
    try:
        line.encode()
    except UnicodeEncodeError:  # an argument whose bytes are not UTF-8 has half letters for them
        raise UsageError("the query is not UTF-8", "type it in a terminal whose locale is UTF-8") from None
    phrases = tuple(found for match in _quoted.finditer(line) if (found := (match[1] or match[2] or "").strip()))
    text = " ".join(_quoted.sub(lambda match: f" {match[1] or match[2] or ''} ", line).split())
    if not text:
        raise UsageError("the query is empty", "name what to look for, such as `embedcli search 'red light' INDEX`")
    return Query(text, tuple(dict.fromkeys(terms(text))), phrases)
