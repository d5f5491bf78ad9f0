"""Parsed JSON of a file of ours -> its fields, each of the type and in the range that it was written with.

In: what `json.loads` gave. Out: Fields, whose methods return a value or raise Malformed, which names the field. A file
may be damaged or edited: nothing of it is used before it was looked at.
Not here: which fields a file has (records.py, config.py, index/manifest.py, index/staging.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
MOST = (1 << 63) - 1
SHA256 = re.compile("[0-9a-f]{64}")
DIGEST = re.compile("[0-9a-f]{32}")
LONGEST_SHOWN = 40


class Malformed(ValueError):
    """A field that is missing, of another type, or out of its range."""


class Fields:
    """The fields of one JSON object; `path` is where it stands in the file, with a dot at its end."""

    def __init__(self, data: Any, path: str = "") -> None:
        if not isinstance(data, dict):
            raise Malformed(f"`{path.rstrip('.') or 'it'}` is {_shown(data)}, not an object")
        self._data = data
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def raw(self, name: str) -> Any:
        """The value, whatever it is."""
        if name not in self._data:
            raise Malformed(f"`{self._path}{name}` is missing")
        return self._data[name]

    def text(self, name: str, of: re.Pattern[str] | None = None) -> str:
        """A string; with `of` one that the pattern matches whole. None has a NUL, which no path may have."""
        value = self.raw(name)
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(name, "a text")
        if of is not None and not of.fullmatch(value):
            raise self._wrong(name, f"of the form `{of.pattern}`")
        return value

    def whole(self, name: str, least: int = 0, most: int = MOST) -> int:
        value = self.raw(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str) -> float:
        """A number from 0, whole or not."""
        value = self.raw(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST:
            raise self._wrong(name, "a number from 0")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.raw(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def object(self, name: str) -> Fields:
        return Fields(self.raw(name), f"{self._path}{name}.")

    def objects(self, name: str) -> list[Fields]:
        return [Fields(item, f"{self._path}{name}.{number}.") for number, item in enumerate(self._list(name))]

    def texts(self, name: str) -> tuple[str, ...]:
        items = self._list(name)
        if any(not isinstance(item, str) or "\0" in item for item in items):
            raise self._wrong(name, "a list of texts")
        return tuple(items)

    def wholes(self, name: str) -> dict[str, int]:
        """An object whose values are all numbers of things."""
        counts = self.object(name)
        return {key: counts.whole(key) for key in counts._data}

    def numbers(self) -> dict[str, float]:
        """All fields, which are numbers."""
        return {name: self.number(name) for name in self._data}

    def maybe(self, name: str, read: Callable[[str], T]) -> T | None:
        """What `read`, a method of these Fields, makes of the field; None where it is null."""
        return None if self.raw(name) is None else read(name)

    def get(self, name: str, read: Callable[[str], T], default: T) -> T:
        """What `read` makes of a field that older versions did not write."""
        return read(name) if name in self else default

    def _list(self, name: str) -> list[Any]:
        value = self.raw(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def _wrong(self, name: str, wanted: str) -> Malformed:
        return Malformed(f"`{self._path}{name}` is {_shown(self._data[name])}, not {wanted}")


def _shown(value: Any) -> str:
    """A value in a message, however large it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return str({None: "null", True: "true", False: "false"}[value])
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 128 else "a number of many digits"
    return f"`{text[:LONGEST_SHOWN]}`"
