"""Texts that have their answers -> Arrow tables: what the user asked for beside the vectors, and what has no vector.

In: texts in order, each part with its vector or its refusal. Out: a table, lines that name what has none, counts.
Not here: where the vectors come from (in_order.py), the formats (output.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from embedcli.columns import Floats
from embedcli.engines.contract import Refusal
from embedcli.pipes.in_order import Pending
from embedcli.pipes.output import JSON_TEXT, vector_column
from embedcli.pipes.prepare import Part
from embedcli.pipes.texts import Text
from embedcli.report import one_line

if TYPE_CHECKING:
    from embedcli.report import Say

NAMED_PROBLEMS = 20
"""Texts without a vector that are named one by one."""


@dataclass(frozen=True)
class Shape:
    """What the output has beside the vector."""

    format: str
    ids: bool
    text: bool
    parts: bool

    def schema(self, dim: int) -> pa.Schema:
        """The columns: id, text, chunk_index, char_start, char_end, where they are asked for, and embedding."""
        json_text = JSON_TEXT if self.format == "jsonl" else None
        fields = [pa.field("id", pa.string(), metadata=json_text)] if self.ids else []
        fields += [pa.field("text", pa.string())] if self.text else []
        if self.parts:
            kinds = {"chunk_index": pa.int32(), "char_start": pa.int64(), "char_end": pa.int64()}
            fields += [pa.field(name, kind) for name, kind in kinds.items()]
        return pa.schema([*fields, pa.field("embedding", pa.list_(pa.float32(), dim))])


@dataclass
class Result:
    """What was done. `problems`: how many vectors are missing, by kind."""

    texts: int = 0
    tokens: int = 0
    problems: Counter[str] = field(default_factory=Counter)


class Tables:
    """Makes a table of texts that have their answers, and counts; a missing vector is null, and named."""

    def __init__(self, shape: Shape, dim: int, unit: str, say: Say) -> None:
        self.result = Result()
        self._shape = shape
        self._schema = shape.schema(dim)
        self._dim = dim
        self._unit = unit
        self._say = say

    def __call__(self, ready: Sequence[Pending]) -> pa.Table:
        self.result.texts += len(ready)
        vectors: list[Floats | None] = []
        rows: list[dict[str, Any]] = []
        for pending in ready:
            text, parts = pending.prepared.text, pending.prepared.parts
            if not parts:
                self._miss(text, pending.prepared.problem)
                vectors.append(None)
                rows.append(self._row(text, None, None))
            for number, (part, answer) in enumerate(zip(parts, pending.answers, strict=True)):
                if isinstance(answer, Refusal):
                    self._miss(text, f"{answer.reason}: the engine gives no sound vector")
                vectors.append(None if isinstance(answer, Refusal) else answer)
                rows.append(self._row(text, number, part))
        columns = [pa.array([row[name] for row in rows], self._schema.field(name).type) for name in rows[0]]
        return pa.table([*columns, vector_column(vectors, self._dim)], schema=self._schema)

    def _row(self, text: Text, number: int | None, part: Part | None) -> dict[str, Any]:
        """All columns but the vector."""
        shape, row = self._shape, dict[str, Any]()
        if shape.ids:
            row["id"] = self._id(text)
        if shape.text:
            row["text"] = text.text[part.char_start : part.char_end] if part and text.text else text.text
        if shape.parts:
            row["chunk_index"] = number
            row["char_start"], row["char_end"] = (part.char_start, part.char_end) if part else (None, None)
        return row

    def _id(self, text: Text) -> str | None:
        """As JSON for JSON lines; elsewhere a string is as it is."""
        if text.id is None or (isinstance(text.id, str) and self._shape.format != "jsonl"):
            return text.id
        try:
            return orjson.dumps(text.id).decode()
        except TypeError:  # a whole number of more than 64 bits
            return json.dumps(text.id, ensure_ascii=False)

    def _miss(self, text: Text, problem: str) -> None:
        self.result.problems[problem.partition(":")[0]] += 1
        missing = self.result.problems.total()
        if missing <= NAMED_PROBLEMS:
            place = f"{self._unit} {text.number:,}"
            self._say(f"{f'`{one_line(text.source)}` ' if text.source else ''}{place}: {problem}")
        elif missing == NAMED_PROBLEMS + 1:
            self._say("... more such texts are only counted")
