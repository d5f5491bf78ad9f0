"""A row of names and values -> a Record: which fields are its text, its id, its title, its meta.

In: a mapping and a RecordRule. Out: a Record, one with a `problem` where there is no text. A record without an id gets
the digest of its text for one (known.py tells equal ones apart).
Not here: parsing (lines.py, columns.py), cleaning the text (reading/rows.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import orjson

from embedcli.records import Record, RecordRule, digest

_PLAIN = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS


class Fields:
    """A rule, ready for millions of rows."""

    def __init__(self, rule: RecordRule) -> None:
        self._rule = rule
        self._one_text = rule.text[0] if len(rule.text) == 1 and not rule.label else None
        self._apart = frozenset((*rule.text, rule.id, rule.title))

    def record_of(self, row: Mapping[str, Any], line: int) -> Record | None:
        """The record in a row, which is that of a line (a row, where a format has no lines); None where it has no
        text, a bad line where its fields cannot be written as JSON."""
        try:
            return self._record_of(row, line)
        except (TypeError, UnicodeEncodeError, RecursionError):
            return bad_line(line, *_unwritable(row))

    def _record_of(self, row: Mapping[str, Any], line: int) -> Record | None:
        rule = self._rule
        text = words_of(row.get(self._one_text)) if self._one_text is not None else self._joined(row)
        if not text or text.isspace():
            return None
        title = words_of(row.get(rule.title))
        meta = self._meta(row)
        content = f"{len(title)} {len(text)} {title}{text}".encode("utf-8", "surrogatepass") + meta
        found = hashlib.blake2b(content, digest_size=16).hexdigest()
        return Record(words_of(row.get(rule.id)), found, text, title or None, meta.decode() or None, line=line)

    def _joined(self, row: Mapping[str, Any]) -> str:
        parts = [(name, words) for name in self._rule.text if (words := words_of(row.get(name))).strip()]
        if not self._rule.label:
            return "\n\n".join(words for _, words in parts)
        return "\n\n".join(f"{name}: {words}" for name, words in parts)

    def _meta(self, row: Mapping[str, Any]) -> bytes:
        """JSON of the fields that are meta, in the order in which they stand; nothing without one."""
        if self._rule.meta is None:
            apart = self._apart
            rest = {name: value for name, value in row.items() if name not in apart}
        else:
            rest = {name: row[name] for name in self._rule.meta if name in row}
        try:
            return orjson.dumps(rest, default=words_of, option=_PLAIN) if rest else b""
        except TypeError as error:
            if "64-bit" not in str(error):  # it is no whole number that has more bits, but what no JSON can hold
                raise
            return json.dumps(rest, ensure_ascii=False, separators=(",", ":"), default=words_of).encode()


def _unwritable(row: Mapping[str, Any]) -> tuple[str, bytes]:
    """Why a row is no JSON, and what tells it from others: a name is not UTF-8, or a value is nested too deep."""
    names = "".join(map(str, row))
    plain = "".join(value for value in row.values() if isinstance(value, str))
    problem = "damaged" if names.encode("utf-8", "ignore").decode() == names else "not_utf8"
    return problem, f"{names}{plain}".encode("utf-8", "surrogatepass")


def has_text(row: object, rule: RecordRule) -> bool:
    """Whether a row has a field of text at all, be it empty."""
    return isinstance(row, Mapping) and any(isinstance(row.get(name), str) for name in rule.text)


def bad_line(number: int, problem: str, content: bytes = b"") -> Record:
    """What stands for a line that cannot be read; `number` counts from 1.
    Its name is no id that a record has (see shown_id)."""
    return Record(f"line {number}", digest(problem, content), problem=problem, line=number)


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
