"""Start the engine that a run would use, and check the vectors of the probe set: `embedcli doctor --start`.

In: the folder of an index, which may not exist yet, the model asked for, the tools of a run. Out: one sentence that
says what was compared, or an EngineError.
Not here: the checks that start nothing (machine.py), the comparison itself (engines/probe.py).
"""

from __future__ import annotations

from pathlib import Path

from embedcli.config import Options
from embedcli.engines import probe
from embedcli.index.mirror.place import open_index
from embedcli.models.tokenizer import load_tokenizer
from embedcli.run.embedder import known_reference
from embedcli.run.known import Memory
from embedcli.run.settings import settle_settings
from embedcli.run.tools import Tools


def start_engine(index: Path, model: str | None, tools: Tools) -> str:
    """Start the engine of a run on this index and embed the probe set. Raises EngineError when the vectors differ from
    those of the index, or, without an index, when a text alone has another vector than in a batch."""
    asked = Options(index=index, model=model)
    opened = open_index(index)
    current = opened.current() if opened.current_number() is not None else None
    memory = Memory(current.settings, current.fingerprints.model) if current else Memory()
    chosen = tools.resolve(asked, memory.settings)
    settings, prints = settle_settings(asked, memory, chosen, tools.device_kind(asked))
    reference = known_reference(opened, current, (), model_fingerprint=prints.model, dim=settings.dim)
    engine = tools.open_engine(chosen, settings, settings.device_kind)
    try:
        encode = load_tokenizer(chosen.folder, prompt=chosen.prompt).row_of
        probe.judge(engine, reference, encode=encode, max_tokens=settings.max_tokens, model=settings.model)
    finally:
        engine.close()
    agrees = "as the index has it" if reference is not None else "each text alone as in a batch"
    return f"{settings.model} on {settings.device_kind} embeds the probe set, {agrees}"
