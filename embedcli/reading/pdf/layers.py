"""Which layers of a PDF are off when it is opened: they are neither shown nor printed.

In: the catalog's /OCProperties, as pypdf has it. Out: whether what a group or a condition governs is hidden. Not here:
where in the document it governs something (overlay.py).
"""

from __future__ import annotations

from typing import Any

from embedcli.reading.pdf.second import inner, number_of

MOST_NESTING = 20


class Layers:
    """Which optional-content groups, and conditions on them, are off when the document is opened."""

    def __init__(self, properties: Any) -> None:
        self._off: set[int] = set()
        groups = _ids(properties.get("/OCGs"))
        default = inner(properties, "/D")
        if default.get("/BaseState") == "/OFF":
            self._off = groups - _ids(default.get("/ON"))
        self._off |= _ids(default.get("/OFF"))
        for event in _objects(default.get("/AS")):
            if event.get("/Event") == "/View":
                self._off |= {number for number, group in _items(event.get("/OCGs")) if _viewed(group) == "/OFF"}
                self._off -= {number for number, group in _items(event.get("/OCGs")) if _viewed(group) == "/ON"}

    @property
    def any_off(self) -> bool:
        return bool(self._off)

    def hide(self, reference: Any) -> bool:
        """Whether what this group or condition governs is not shown."""
        if reference is None:
            return False
        condition = reference.get_object()
        if number_of(reference) in self._off:
            return True
        if not hasattr(condition, "get") or condition.get("/Type") != "/OCMD":
            return False
        if "/VE" in condition:
            return not self._holds(condition["/VE"], 0)
        states = [number not in self._off for number, _ in _items(condition.get("/OCGs"))]
        policy = condition.get("/P", "/AnyOn")
        shown = {"/AllOn": all(states), "/AnyOff": not all(states), "/AllOff": not any(states)}.get(policy, any(states))
        return bool(states) and not shown

    def _holds(self, expression: Any, depth: int) -> bool:
        """A visibility expression: [/And ...], [/Or ...], [/Not ...] or a group."""
        if not isinstance(expression.get_object(), list):
            return number_of(expression) not in self._off
        operator, *parts = expression.get_object()
        if depth > MOST_NESTING or not parts:
            return True
        values = [self._holds(part, depth + 1) for part in parts]
        return {"/And": all(values), "/Or": any(values)}.get(operator, not values[0])


def _viewed(group: Any) -> Any:
    return inner(inner(group, "/Usage"), "/View").get("/ViewState")


def _items(array: Any) -> list[tuple[int, Any]]:
    """Object number (0: none) and object of each; a single reference stands for an array of one."""
    if array is None:
        return []
    found = array.get_object()
    references = list(found) if isinstance(found, list) else [array]
    return [(number_of(reference), item) for reference in references if hasattr(item := reference.get_object(), "get")]


def _objects(array: Any) -> list[Any]:
    return [item for _, item in _items(array)]


def _ids(array: Any) -> set[int]:
    return {number for number, _ in _items(array)}
