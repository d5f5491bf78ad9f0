"""Texts from stdin or files: one a line, NUL-separated, or a field of JSON lines.

In: paths (`-` is stdin) and the form of the texts. Out: batches of Texts in the order given, each as soon as its bytes
have come. What is no text keeps its place, with a problem. Memory holds a bounded part of the input.
Not here: tokens (prepare.py), who waits for whom (in_order.py).
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedcli.errors import InputError

READ_BYTES = 1 << 16
MOST_BYTES = 16 << 20
"""The most bytes of one text: a stream without separators must not fill the memory."""

BATCHES_AHEAD = 4
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Text:
    """One text and where it stood: `number` counts from 1 in its `source`. `problem`: why `text` is None."""

    source: str
    number: int
    text: str | None
    id: Any = None
    problem: str = ""


@dataclass(frozen=True)
class Form:
    """How the texts lie in the input. `field`: each line is a JSON object that has its text there, and perhaps an `id`.

    `most_bytes`: a longer text is a problem of its own, and not kept in memory.
    """

    null: bool = False
    field: str | None = None
    most_bytes: int = MOST_BYTES

    @property
    def unit(self) -> str:
        """What is counted."""
        return "text" if self.null else "line"


class Ahead:
    """Reads in a thread of its own, a few batches ahead. `done`: every batch was taken."""

    def __init__(self, paths: Sequence[str], form: Form) -> None:
        """Raises InputError (exit 15) where a file cannot be read."""
        self._batches: queue.Queue[list[Text] | BaseException | None] = queue.Queue(BATCHES_AHEAD)
        self.done = False
        for path in paths:
            _check(path)
        threading.Thread(target=self._read, args=(paths, form), name="embedcli-texts", daemon=True).start()

    def get(self, timeout: float) -> list[Text]:
        """The next texts; none where `timeout` seconds brought none. Raises what ended the reading."""
        try:
            batch = self._batches.get(timeout=timeout) if timeout else self._batches.get_nowait()
        except queue.Empty:
            return []
        if isinstance(batch, BaseException):
            raise batch
        self.done = batch is None
        return batch or []

    def _read(self, paths: Sequence[str], form: Form) -> None:
        end: BaseException | None = None
        try:
            for path in paths:
                with _opened(path) as stream:
                    for batch in texts(stream.read, form, source="" if path == STDIN else path):
                        self._batches.put(batch)
        except OSError as error:
            end = _unreadable(path, error.strerror or str(error))
        finally:
            self._batches.put(end or sys.exception())


def _check(path: str) -> None:
    """Find a mistake before a model is loaded. Nothing is opened: the shell's `<(...)` can be read only once."""
    if path == STDIN:
        if sys.stdin is None or sys.stdin.closed:
            raise _unreadable(path, "stdin is closed")
        return
    if not os.path.exists(path):
        raise _unreadable(path, "there is no such file")
    if os.path.isdir(path):
        raise _unreadable(path, "it is a folder")
    if not os.access(path, os.R_OK):
        raise _unreadable(path, "permission denied")


def _opened(path: str) -> Any:
    """Without Python's buffer: that would hold a text back until it is full, and its lock at the program's end."""
    if path == STDIN:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    return open(path, "rb", buffering=0)


def _unreadable(path: str, problem: str) -> InputError:
    return InputError(f"cannot read `{path}`: {problem}", "give the texts on stdin, or in files that can be read")


def texts(read: Callable[[int], bytes], form: Form, *, source: str) -> Iterator[list[Text]]:
    """The texts of one stream, in the batches in which they come."""
    number = 0
    for pieces in _pieces(read, b"\0" if form.null else b"\n", form.most_bytes):
        batch = [_text(piece, form, source, number + place) for place, piece in enumerate(pieces, start=1)]
        number += len(pieces)
        yield [text for text in batch if text is not None]


def _pieces(read: Callable[[int], bytes], separator: bytes, most_bytes: int) -> Iterator[list[bytes | None]]:
    """What lies between the separators; None for what is longer than `most_bytes`. The last one needs no separator."""
    held: list[bytes] = []
    size_bytes = 0

    def whole() -> bytes | None:
        return b"".join(held) if size_bytes <= most_bytes else None

    while block := read(READ_BYTES):
        first, *others = block.split(separator)
        size_bytes += len(first)
        held = [*held, first] if size_bytes <= most_bytes else []
        if others:
            pieces = [whole(), *(piece if len(piece) <= most_bytes else None for piece in others[:-1])]
            held, size_bytes = [others[-1]], len(others[-1])
            yield pieces
    if size_bytes:
        yield [whole()]


def _text(piece: bytes | None, form: Form, source: str, number: int) -> Text | None:
    """None for an empty line among JSON lines, which is no record."""
    if piece is None:
        return Text(source, number, None, problem=f"too large: more than {form.most_bytes >> 20:,} MiB")
    if number == 1:
        piece = piece.removeprefix(BYTE_ORDER_MARK)
    if form.field is not None:
        return _of_json(piece, form.field, source, number) if piece.strip() else None
    try:
        text = (piece if form.null else piece.removesuffix(b"\r")).decode()
    except UnicodeDecodeError:
        return Text(source, number, None, problem="not UTF-8")
    return Text(source, number, text)


def _of_json(line: bytes, field: str, source: str, number: int) -> Text:
    import orjson

    from embedcli.reading.containers.lines import exact, huge

    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Text(source, number, None, problem=f"not JSON: {error.msg}")
    if not isinstance(record, dict):
        return Text(source, number, None, problem="not JSON: it is not an object")
    text, name = record.get(field), record.get("id")
    if isinstance(name, float) and huge.search(line):
        name = exact(line)["id"]
    if not isinstance(text, str):
        lacks = "is not text" if field in record else "is missing"
        return Text(source, number, None, name, problem=f"no text: the field `{field}` {lacks}")
    return Text(source, number, text, name)
