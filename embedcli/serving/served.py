"""The model that is served: its name, its limits, and the rows of token ids that its engine gets for texts.

In: a model, the settings of its vectors, what a client sent. Out: rows, or a Problem that names the text.
Not here: the engine (batcher.py), the form of a request (embeddings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedcli.fingerprints import model_fingerprint
from embedcli.models.tokenizer import Tokens, load_tokenizer, skipped_tokens
from embedcli.pipes.prepare import EMPTY, Limit, Prepared, prepare
from embedcli.pipes.texts import Text
from embedcli.serving.answers import wrong

if TYPE_CHECKING:
    from embedcli.config import IndexSettings
    from embedcli.index.manifest import Generation
    from embedcli.models.folder import Model

KINDS = {
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "query": "query",
    "search_query": "query",
}
"""What clients of other servers call the two kinds of texts (`input_type`)."""


@dataclass(frozen=True)
class Served:
    """`fixed_prompt`: the pooling leaves out the prompt, so that the engine knows only that of documents."""

    name: str
    dim: int
    max_tokens: int
    fingerprint: str
    documents: Tokens
    queries: Tokens
    plain: Tokens
    fixed_prompt: bool

    def is_of(self, generation: Generation) -> bool:
        """Whether the vectors of the generation are of this model."""
        settings = generation.settings
        made_for = (generation.fingerprints.model, settings.dim, settings.max_tokens)
        return made_for == (self.fingerprint, self.dim, self.max_tokens)

    def rows(self, texts: Sequence[str], kind: str, prompt: str | None) -> list[np.ndarray]:
        """A row for each text, `prompt` in the place of the model's own. Raises Problem 400."""
        tokens, given = self._tokens(kind, prompt), list(texts)
        found = self._prepared(given, tokens, prompt or "", "fail")
        return [self._row(number, prepared, len(given)) for number, prepared in enumerate(found)]

    def query_row(self, text: str) -> np.ndarray:
        """The row of a query that is searched for; one that is too long is cut at its end."""
        (prepared,) = self._prepared([text], self._tokens("query", None), "", "truncate")
        return self._row(0, prepared, 1)

    def _prepared(self, texts: Sequence[str], tokens: Tokens, prompt: str, long: str) -> list[Prepared]:
        blank = [not text or text.isspace() for text in texts]
        batch = [
            Text("", number, text if empty else prompt + text)
            for number, (text, empty) in enumerate(zip(texts, blank, strict=True))
        ]
        return prepare(batch, tokens, Limit(self.max_tokens, long))

    def _tokens(self, kind: str, prompt: str | None) -> Tokens:
        if self.fixed_prompt and (kind == "query" or prompt is not None):
            field = "input_type" if prompt is None else "prompt"
            raise wrong(
                f"`{self.name}` leaves its prompt out of its vectors, so it can be served for documents only", field
            )
        if prompt is not None:
            return self.plain
        return self.queries if kind == "query" else self.documents

    def _row(self, number: int, prepared: Prepared, count: int) -> np.ndarray:
        if prepared.parts:
            return prepared.parts[0].ids
        which = "the input" if count == 1 else f"text {number} of the input (counted from 0)"
        if prepared.problem == EMPTY:
            raise wrong(f"{which} is empty", "input", "empty_text")
        detail = prepared.problem.partition(": ")[2]
        raise wrong(f"{which} is too long: {detail}", "input", "context_length_exceeded")


def served(model: Model, settings: IndexSettings) -> Served:
    """Load the tokenizer of a model, once for each prompt."""
    asking = replace(model, prompt=model.query_prompt)
    return Served(
        name=model.name,
        dim=settings.dim,
        max_tokens=settings.max_tokens,
        fingerprint=model_fingerprint(model.fingerprint, settings.quantization),
        documents=load_tokenizer(model.folder, prompt=model.prompt),
        queries=load_tokenizer(model.folder, prompt=model.query_prompt),
        plain=load_tokenizer(model.folder),
        fixed_prompt=skipped_tokens(model) != skipped_tokens(asking),
    )
