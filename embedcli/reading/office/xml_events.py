"""XML -> calls of a handler, one an element, without a tree: memory does not grow with the document.

In: an open binary stream of XML. Out: calls of a Handler's functions in document order; UnreadableSource `damaged`.
Not here: what elements mean (docx.py and its like).

Prefixes are cut off, never looked up: which one a program writes says nothing, and old programs forgot to declare some.
Nothing outside the stream is ever loaded. Of entities that a document declares itself only short ones without others
in them are allowed, as drawing programs write them: a few nested lines can stand for gigabytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import IO
from xml.parsers import expat

from embedcli.errors import UnreadableSource

BLOCK_BYTES = 256 << 10
LONGEST_ENTITY = 200
SEPARATOR = ":"

Attributes = dict[str, str]
Start = Callable[[Attributes], bool | None]
"""Called where an element begins; True passes over all that is in it, its end included."""
End = Callable[[], None]


class Handler:
    """What is called for the elements of these names, without their namespace, and for all characters."""

    starts: dict[str, Start]
    ends: dict[str, End]
    any_start: Callable[[str, Attributes], None] | None = None
    any_end: Callable[[str], None] | None = None
    """Called with the name of an element for which there is no other."""

    def __init__(self, starts: dict[str, Start], ends: dict[str, End] | None = None) -> None:
        self.starts, self.ends = starts, ends or {}

    def text(self, characters: str) -> None:
        """Nothing, unless a handler wants characters."""


def pass_over(_attributes: Attributes) -> bool:
    """The Start of elements that hold nothing for a reader."""
    return True


def attribute(attributes: Attributes, name: str) -> str | None:
    """The value of the attribute `name` of any namespace; where it may have none either, that one is preferred."""
    if name in attributes:
        return attributes[name]
    return qualified(attributes, name)


def qualified(attributes: Attributes, name: str) -> str | None:
    """The value of the attribute `name` that has a namespace: `r:id`, never `id`."""
    ending = SEPARATOR + name
    return next((value for full, value in attributes.items() if full.endswith(ending)), None)


def parse(stream: IO[bytes], handler: Handler, *, beat: Callable[[int], None], encoding: str | None = None) -> None:
    """Call the handler for all of the stream; `encoding` is stronger than what the stream declares of itself."""
    parser = _parser(handler, encoding)
    try:
        while block := stream.read(BLOCK_BYTES):
            beat(0)
            parser.Parse(block, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise UnreadableSource("damaged", str(error)) from None
    except (LookupError, ValueError) as error:  # an encoding that is none, or of several bytes a character
        raise UnreadableSource("damaged", str(error)) from None


def parse_all(text: str, handler: Handler, *, beat: Callable[[int], None]) -> None:
    """Call the handler for a text, whatever encoding it names."""
    parse(io.BytesIO(text.encode("utf-8", "replace")), handler, beat=beat, encoding="utf-8")


def _parser(handler: Handler, encoding: str | None) -> expat.XMLParserType:
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.buffer_size = 64 << 10
    starts: dict[str, Start | None] = {}
    ends: dict[str, End | None] = {}
    depth = 0  # of the element that is passed over, from itself

    def start(name: str, attributes: Attributes) -> None:
        try:
            action = starts[name]
        except KeyError:
            local = name.rpartition(SEPARATOR)[2]
            any_start = None if handler.any_start is None else partial(handler.any_start, local)
            action = starts[name] = handler.starts.get(local, any_start)
        if action is not None and action(attributes):
            nonlocal depth
            depth = 1
            parser.StartElementHandler, parser.EndElementHandler = deeper, higher
            parser.CharacterDataHandler = None

    def end(name: str) -> None:
        try:
            action = ends[name]
        except KeyError:
            local = name.rpartition(SEPARATOR)[2]
            any_end = None if handler.any_end is None else partial(handler.any_end, local)
            action = ends[name] = handler.ends.get(local, any_end)
        if action is not None:
            action()

    def deeper(_name: str, _attributes: Attributes) -> None:
        nonlocal depth
        depth += 1

    def higher(_name: str) -> None:
        nonlocal depth
        depth -= 1
        if not depth:
            listen()

    def listen() -> None:
        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler = handler.text

    listen()
    parser.EntityDeclHandler = _refuse_entities
    return parser


def _refuse_entities(
    name: str, _is_parameter: bool, value: str | None, _base: str | None, _system: str | None, _public: str | None,
    _notation: str | None,
) -> None:  # fmt: skip
    if value is not None and (len(value) > LONGEST_ENTITY or "&" in value or "%" in value):
        raise UnreadableSource("damaged", f"the entity `{name}` stands for others, or for very much")
