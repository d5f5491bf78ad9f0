"""A model folder -> an engine on NVIDIA cards: SGLang's, in a process of its own.

In: a Model of the Qwen3 family, the cards asked for. Out: an Engine, or EngineError with the hint that helps.
Not here: the process (process.py), the arguments (settings.py), several cards as one (engines/several_cards.py), who
feeds and restarts it (engines/feeder.py). Neither SGLang nor torch is ever imported here.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from embedcli.config import cache_folder
from embedcli.engines.contract import Engine, check_dim
from embedcli.engines.nvml import Card, check_driver, installed_torch_cuda, read_cards
from embedcli.engines.several_cards import open_on_all
from embedcli.engines.sglang.host import ENGINE_FACTORY
from embedcli.engines.sglang.process import Host
from embedcli.engines.sglang.settings import (
    BATCH_ROWS,
    BATCH_TOKENS,
    DEPTH,
    MODELS,
    EngineArguments,
    SGLangSettings,
    Shape,
    own_forward_problem,
    plan,
    read_shape,
)
from embedcli.errors import EngineError, EngineOutOfMemory
from embedcli.models.files import read_json
from embedcli.models.folder import Model
from embedcli.report import Say

START_TIMEOUT_S = 900.0
"""Enough for a model of 15 GB on a slow disk and for kernels that are compiled for the first time."""

TORCH_HINT = "use `--engine torch`"

SMALLER_AFTER_OUT_OF_MEMORY = 4
"""How many times smaller the batches of the next start are. A start takes half a minute or more, so few are tried."""

_KERNEL_WORDS = re.compile(r"no kernel image|flash.?att|\bfa3\b|Fatal Python error", re.I)


def open_engine(
    model: Model,
    *,
    dim: int,
    settings: SGLangSettings | None = None,
    load_format: str = "auto",
    say: Say | None = None,
    warn: Say | None = None,
    show_log: Say | None = None,
    installed: Callable[[str], object] = find_spec,
) -> Engine:
    """Start SGLang on the cards of the settings: half a minute or more.

    `say` gets a line before and after the start of each card, `warn` the failures of one card among several,
    `show_log` every line that SGLang logs. `load_format` "dummy" makes random weights for a folder that has none.
    """
    if not installed("sglang"):
        raise EngineError("SGLang is not installed", f"`pip install 'embedcli[gpu]'`, or {TORCH_HINT}")
    settings = settings or SGLangSettings()
    cards = read_cards(settings.gpus)
    check_driver(cards[0], installed_torch_cuda())

    def start(card: Card, stop: threading.Event) -> Engine:
        return start_engine(
            model,
            dim=dim,
            card=card,
            settings=settings,
            load_format=load_format,
            say=_of_card(card, cards, say),
            show_log=_of_card(card, cards, show_log),
            stop=stop,
        )

    if len(cards) == 1:
        return start(cards[0], threading.Event())
    return open_on_all(cards, start, warn=warn or _silent)


def _of_card(card: Card, cards: Sequence[Card], say: Say | None) -> Say | None:
    """`say` for one card: with several cards each line begins with the number of its card."""
    if say is None or len(cards) == 1:
        return say
    return lambda line: say(f"card {card.index}: {line}")


def start_engine(
    model: Model,
    *,
    dim: int,
    card: Card,
    settings: SGLangSettings,
    load_format: str = "auto",
    say: Say | None = None,
    show_log: Say | None = None,
    stop: threading.Event | None = None,
    factory: str = ENGINE_FACTORY,
    timeout_s: float = START_TIMEOUT_S,
    sglang_version: str | None = None,
) -> SGLangEngine:
    """Start the engine of one card. `factory` names the `module:function` that makes SGLang's Engine from its
    arguments. `sglang_version` None means the installed version.

    Raises EngineError where another try would fail too, EngineDied where it may succeed, and once `stop` is set.
    """
    shape = _checked_shape(model, dim)
    job = {"factory": factory, "dim": dim}
    arguments = {"model_path": str(model.folder), "load_format": load_format}
    say = say or _silent
    own = _uses_own_forward(card, shape, settings, sglang_version or _installed_version(), say)
    start = _Start(
        card, shape, model.max_tokens, job, arguments,
        say=say, show_log=show_log, stop=stop, timeout_s=timeout_s, own_forward=own,
    )  # fmt: skip
    try:
        return start.within_memory(settings, flash=True)
    except EngineError as error:
        if own and type(error) is EngineError:
            with suppress(EngineError):  # the first error says what is wrong: it is raised below
                engine = replace(start, own_forward=False).within_memory(settings, flash=True)
                say(f"SGLang's own forward pass is used: ours does not start here: {str(error).splitlines()[0]}")
                return engine
            raise
        if not _lacks_flash(card, error):
            raise
        with suppress(EngineError):  # the first error says what is wrong with this card: it is raised below
            return start.within_memory(settings, flash=False)
        raise


@dataclass(frozen=True)
class _Start:
    """How to start the engine of one card. `job` and `arguments` (SGLang's) hold what does not depend on the plan."""

    card: Card
    shape: Shape
    max_tokens: int
    job: Mapping[str, Any]
    arguments: Mapping[str, Any]
    say: Say
    show_log: Say | None
    stop: threading.Event | None
    timeout_s: float
    own_forward: bool

    def within_memory(self, asked: SGLangSettings, *, flash: bool) -> SGLangEngine:
        """Start as planned; with smaller batches, if the card runs out of memory during the warm-up."""
        chosen = plan(self.card, self.shape, max_tokens=self.max_tokens, asked=asked, flash=flash)
        try:
            return self.once(chosen)
        except EngineOutOfMemory as error:
            smaller = chosen.batch_tokens // SMALLER_AFTER_OUT_OF_MEMORY
            if smaller < BATCH_TOKENS[-1]:
                raise
            self.say(f"{error}: trying batches of {smaller:,} tokens")
        return self.within_memory(replace(asked, batch_tokens=smaller), flash=flash)

    def once(self, chosen: EngineArguments) -> SGLangEngine:
        arguments = {**self.arguments, **chosen.arguments}
        job = {**self.job, "arguments": arguments, "warm_up": chosen.warm_up}
        self.say(f"starting SGLang on {self.card.name}, batches of {chosen.batch_tokens:,} tokens")
        environment = host_environment(os.environ, self.card, own_forward=self.own_forward)
        host = Host(job, environment=environment, show_log=self.show_log)
        with ExitStack() as unless_ready:
            unless_ready.callback(host.close)
            facts = host.wait_until_ready(self.timeout_s, self.stop)
            engine = SGLangEngine(host, facts, dim=self.job["dim"], shape=self.shape, chosen=chosen)
            unless_ready.pop_all()
        self.say(f"SGLang is ready after {host.age_s:.0f} s")
        return engine


def _uses_own_forward(card: Card, shape: Shape, settings: SGLangSettings, sglang_version: str, say: Say) -> bool:
    """Whether our forward pass is used. `say` gets the reason why not, unless the settings ask for SGLang's."""
    if settings.forward != "own":
        return False
    problem = own_forward_problem(card, shape, settings, sglang_version)
    if problem is not None:
        say(f"SGLang's own forward pass is used: {problem}")
    return problem is None


def _installed_version() -> str:
    try:
        return version("sglang")
    except PackageNotFoundError:
        return "an unknown version"


def _silent(_: str) -> None:
    """For a caller that wants no lines."""


def _lacks_flash(card: Card, error: EngineError) -> bool:
    """Whether the start failed for lack of FlashAttention 3, which only capability 9.0 is sure to have.

    On an older card its kernel may be missing: then SGLang says so, or crashes.
    """
    return card.capability[0] == 8 and _KERNEL_WORDS.search(str(error)) is not None


class SGLangEngine:
    """SGLang on one card. It makes its own batches from the rows of those submitted, in the order of their arrival."""

    padded = False
    device = "cuda"
    batch_rows = BATCH_ROWS
    depth = DEPTH

    def __init__(
        self, host: Host, facts: Mapping[str, int], *, dim: int, shape: Shape, chosen: EngineArguments
    ) -> None:
        self.dim = dim
        self.max_tokens = chosen.max_tokens
        self.vocabulary: int | None = shape.vocabulary
        self.precision = str(chosen.arguments.get("quantization") or "bfloat16")
        self.batch_tokens = chosen.batch_tokens
        self._host = host
        if self.max_tokens + facts["page_tokens"] >= facts["pool_tokens"]:
            raise EngineError(
                f"SGLang has room for {facts['pool_tokens']:,} tokens on the card, a row may have {self.max_tokens:,}",
                "leave `--gpu-memory` and `--batch-tokens` out, or lower `--max-tokens`",
            )

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        if not rows:  # SGLang would take an empty request for an error, or for its end
            empty: Future[np.ndarray] = Future()
            empty.set_result(np.empty((0, self.dim), np.float32))
            return empty
        return self._host.submit(rows)

    def close(self) -> None:
        self._host.close()


def host_environment(environment: Mapping[str, str], card: Card, *, own_forward: bool = False) -> dict[str, str]:
    """The environment of the host and of SGLang's processes: one card, no network, caches in writable folders."""
    return {
        **environment,
        **kernel_caches(environment),
        **({"SGLANG_EXTERNAL_MODEL_PACKAGE": MODELS} if own_forward else {}),
        "PATH": host_path(environment),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts
        "CUDA_VISIBLE_DEVICES": str(card.index),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def host_path(environment: Mapping[str, str]) -> str:
    """The PATH, with our Python's folder first: pip installs ninja there, with which SGLang compiles kernels, and
    cron's PATH lacks that folder."""
    return os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", os.defpath)])


def kernel_caches(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep all kernels compiled on this machine in our cache folder.

    By default Inductor's would be removed with the host's TMPDIR, and the others would lie in several places below
    HOME, which a cron job may lack.
    """
    folder = cache_folder(environment)
    names = {
        "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
        "TRITON_CACHE_DIR": "triton",
        "FLASHINFER_WORKSPACE_BASE": "flashinfer",
        "TVM_FFI_CACHE_DIR": "tvm-ffi",
        "SGLANG_CACHE_DIR": "sglang",
        "SGLANG_DG_CACHE_DIR": "deep-gemm",
    }
    return {} if folder is None else {name: environment.get(name, str(folder / own)) for name, own in names.items()}


def _checked_shape(model: Model, dim: int) -> Shape:
    check_dim(model, dim)
    if model.pooling != "lasttoken":
        raise EngineError(f"with SGLang only last-token pooling works, this model needs `{model.pooling}`", TORCH_HINT)
    return read_shape(read_json(model.folder / "config.json"))
