"""The probe set embedded once more, by the engine of this machine: what `verify --probe` compares.

In: how tools are made, the folder of the index. Out: a function from a generation to the vectors of its probe set.
Not here: comparing them (verify.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.config import Options
from embedcli.engines.probe import probe, probe_set
from embedcli.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from embedcli.columns import Floats
    from embedcli.index.manifest import Generation
    from embedcli.run.tools import Tools


def prober(make_tools: Callable[[], Tools], folder: Path, device: str | None) -> Callable[[Generation], Floats]:
    """Embeds the probe set when it is called, with the model of the generation. `device`: None is that of the index."""

    def embed(generation: Generation) -> Floats:
        settings = dataclasses.replace(generation.settings, max_tokens=generation.probe_max_tokens)
        tools = make_tools()
        model = tools.resolve(Options(index=folder, device=device), settings)
        opened = tools.open_engine(model, settings, device or settings.device_kind)
        try:
            tokens = load_tokenizer(model.folder, prompt=model.prompt)
            return probe(opened, probe_set(tokens.row_of, settings.max_tokens))
        finally:
            opened.close()

    return embed
