"""A dynamic XFA form -> its text. The form's PDF page only says that another viewer is needed.

In: the XML packets of the form. Out: captions and words of the template in their order, each field with its value.
Not here: whether a document is such a form (document.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from xml.etree import ElementTree

LONGEST_XML_BYTES = 32 << 20

_DECLARED = re.compile(rb"<!(?:DOCTYPE|ENTITY)")
_CONTENT = re.compile(rb"<\?xml[^>]*\?>")
_BLANKS = re.compile(r"\s+")
_BLOCK = {"p", "br", "li", "div", "tr"}
_VALUE = {"text", "exData", "integer", "decimal", "float", "date", "time", "dateTime", "boolean"}

Values = defaultdict[str, list[str]]


def xfa_text(packets: list[bytes]) -> str:
    """The words of the form, a line each; "" where its XML cannot be read. Nothing in it is fetched or expanded."""
    xml = _CONTENT.sub(b"", b"".join(packets))
    if len(xml) > LONGEST_XML_BYTES or _DECLARED.search(xml):
        return ""
    try:
        return _text(ElementTree.fromstring(b"<forms>" + xml + b"</forms>"))
    except (ElementTree.ParseError, RecursionError):
        return ""


def _text(root: ElementTree.Element) -> str:
    values: Values = defaultdict(list)
    for data in _all(root, "data"):
        for leaf in data.iter():
            if not len(leaf) and leaf.text and leaf.text.strip():
                values[_tag(leaf)].append(_spaced(leaf.text))
    lines = [line for template in _all(root, "template") for line in _lines(template, values)]
    rest = [f"{name}: {value}" for name, left in values.items() for value in left]
    return "\n".join((*lines, *rest))


def _lines(template: ElementTree.Element, values: Values) -> Iterator[str]:
    """Each drawn text and each field of the template; the values that its fields show are taken out of `values`."""
    for element in template.iter():
        if _tag(element) == "draw":
            yield from _words(element)
        elif _tag(element) == "field":
            caption = " ".join(line for part in _all(element, "caption") for line in _words(part))
            found = values.get(element.get("name", ""))
            value = found.pop(0) if found else " ".join(_own_value(element))
            if caption or value:
                yield f"{caption} {value}".strip()


def _own_value(field: ElementTree.Element) -> Iterator[str]:
    """The value that the template itself gives a field."""
    for child in field:
        if _tag(child) == "value":
            yield from _words(child)


def _words(element: ElementTree.Element) -> Iterator[str]:
    for part in element.iter():
        if _tag(part) in _VALUE:
            for line in "".join(_flow(part)).split("\n"):
                if line.strip():
                    yield _spaced(line)


def _flow(element: ElementTree.Element) -> Iterator[str]:
    """Text within rich text, with a line end before and behind each block."""
    yield element.text or ""
    for child in element:
        end = "\n" if _tag(child) in _BLOCK else ""
        yield end
        yield from _flow(child)
        yield end
        yield child.tail or ""


def _all(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (found for found in element.iter() if _tag(found) == name)


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _spaced(text: str) -> str:
    return _BLANKS.sub(" ", text).strip()
