"""A row of names and values -> a Record: which fields are its text, its id, its title, its meta.

In: a mapping and a RecordRule. Out: a Record, one with a `problem` where there is no text. A record without an id gets
the digest of its text for one (known.py tells equal ones apart).
Not here: parsing (lines.py, columns.py), cleaning the text (reading/rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from embedcli.records import Record, RecordRule, digest

_PLAIN = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS


def record_of(row: Mapping[str, Any], rule: RecordRule, line: int) -> Record | None:
    """The record in a row, which is that of a line (a row, where a format has no lines); None where it has no text."""
    text = _text(row, rule)
    if not text or text.isspace():
        return None
    title = words_of(row.get(rule.title)) or None
    meta = _meta(row, rule)
    return Record(words_of(row.get(rule.id)), digest(text, title or "", meta or ""), text, title, meta, line=line)


def has_text(row: object, rule: RecordRule) -> bool:
    """Whether a row has a field of text at all, be it empty."""
    return isinstance(row, Mapping) and any(isinstance(row.get(name), str) for name in rule.text)


def bad_line(number: int, problem: str, content: bytes = b"") -> Record:
    """What stands for a line that cannot be read; `number` counts from 1."""
    return Record(f"line {number}", digest(problem, content), problem=problem, line=number)


def _text(row: Mapping[str, Any], rule: RecordRule) -> str:
    parts = [(name, words) for name in rule.text if (words := words_of(row.get(name))).strip()]
    if not rule.label:
        return "\n\n".join(words for _, words in parts)
    return "\n\n".join(f"{name}: {words}" for name, words in parts)


def _meta(row: Mapping[str, Any], rule: RecordRule) -> str | None:
    """JSON of the fields that are meta, in the order in which they stand; None without one."""
    if rule.meta is None:
        apart = {*rule.text, rule.id, rule.title}
        rest = {name: value for name, value in row.items() if name not in apart}
    else:
        rest = {name: row[name] for name in rule.meta if name in row}
    return orjson.dumps(rest, default=words_of, option=_PLAIN).decode() if rest else None


def words_of(value: Any) -> str:
    """A value as text: nothing for null, a list line by line, an object as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return orjson.dumps(value, option=_PLAIN).decode()
    except TypeError:
        return str(value)
