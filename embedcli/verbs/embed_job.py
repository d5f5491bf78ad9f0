"""What texts without an index, or beside one, are embedded with: `embed` and `serve` ask for it.

In: what was asked. Out: a Job: model, settings, device, and the probe set that the engine is checked with.
Not here: the stream of texts (embed.py), the server (serve.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.config import IndexSettings, Options
from embedcli.engines import probe
from embedcli.engines.probe import Reference
from embedcli.index.generations import Index, current_of
from embedcli.index.mirror.place import open_index
from embedcli.models.folder import Model
from embedcli.models.tokenizer import load_tokenizer
from embedcli.run.embedder import known_reference
from embedcli.run.known import Memory
from embedcli.run.settings import settle_settings

if TYPE_CHECKING:
    from embedcli.engines.contract import Engine
    from embedcli.run.tools import Tools

PROBE_TOKENS = 64
"""Without an index there is nothing to compare with: short texts show whether the engine works at all."""


@dataclass(frozen=True)
class Asked:
    """What the user asked for. With an `index` its settings count, and none of the others is given."""

    index: Path | None = None
    model: str | None = None
    dim: int | None = None
    max_tokens: int | None = None
    query: bool = False
    long: str = "fail"
    device: str | None = None


@dataclass(frozen=True)
class Job:
    """What texts are embedded with: `model` has their prompt, `probe_prompt` is that of the probe set."""

    model: Model
    settings: IndexSettings
    device: str
    probe_prompt: str
    reference: Reference | None = None


def settle(asked: Asked, tools: Tools) -> Job:
    """The model, settings and probe set to embed with: those of the index, if one is named."""
    options = Options(
        index=asked.index or Path(), model=asked.model, dim=asked.dim, max_tokens=asked.max_tokens, device=asked.device
    )
    if asked.index is not None:
        return _settle_as(open_index(asked.index), options, asked, tools)
    model = tools.resolve(options, None)
    options = replace(options, max_tokens=asked.max_tokens or model.max_tokens)
    settings, _ = settle_settings(options, Memory(), model, tools.device_kind(options))
    prompted = _prompted(model, asked)
    return Job(prompted, settings, settings.device_kind, prompted.prompt)


def _settle_as(index: Index, options: Options, asked: Asked, tools: Tools) -> Job:
    current = current_of(index)
    memory = Memory(current.settings, current.fingerprints.model)
    model = tools.resolve(options, current.settings)
    settings, prints = settle_settings(options, memory, model, current.settings.device_kind)
    prompted, device = _prompted(model, asked), asked.device or settings.device_kind
    if not model.include_prompt and prompted.prompt != model.prompt:
        # pooling leaves out this prompt: no document fits this engine
        return Job(prompted, settings, device, prompted.prompt)
    reference = known_reference(index, current, (), model_fingerprint=prints.model, dim=settings.dim)
    return Job(prompted, settings, device, model.prompt, reference)


def _prompted(model: Model, asked: Asked) -> Model:
    """The model with the prompt of queries in the place of that of documents, if queries are embedded."""
    return replace(model, prompt=model.query_prompt) if asked.query else model


def check(engine: Engine, job: Job) -> None:
    """Raise EngineError where the engine is broken, or gives other vectors than the index has."""
    encode = load_tokenizer(job.model.folder, prompt=job.probe_prompt).row_of
    most = job.settings.max_tokens if job.reference else min(PROBE_TOKENS, job.settings.max_tokens)
    probe.judge(engine, job.reference, encode=encode, max_tokens=most, model=job.settings.model)
