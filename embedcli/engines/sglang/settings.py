"""A card and a model -> the arguments of SGLang's Engine, or why the model does not fit. Pure.

In: Card, Shape (read from the model's config.json), what the user asked for. Out: EngineArguments, or EngineError.
Every number is chosen here, none is left to SGLang: its defaults reserve memory for generating text, and on a
card of 24 GB they are negative.
Not here: asking the driver (engines/nvml.py), starting the engine (engine.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from embedcli.engines.nvml import CPU_HINT, Card
from embedcli.errors import EngineError, EngineOutOfMemory

GIB = 1 << 30

LEAST_CAPABILITY = (8, 0)
"""Older cards have no bfloat16."""

SMALL_CARD_BYTES = 30 * GIB
BATCH_TOKENS = (32_768, 16_384, 8_192, 4_096, 2_048)
"""Sizes of a batch: the first that fits is taken. A small card starts at the second, as the first gains it nothing."""

SHARE_TAKEN = 5 / 6
"""The share of the card to stay within, where a smaller batch makes that possible: 20 of 24 GiB, since other programs
need a little too."""

UNUSED_CARD_BYTES = GIB // 2
"""The memory that the driver keeps for itself on an idle card."""

BATCH_ROWS = 256
DEPTH = 8
CONTEXT_BYTES = 1 * GIB
"""CUDA's context, the kernels and their workspaces."""

BATCH_ACTIVATION_BYTES, ROW_ACTIVATION_BYTES = 16, 12
"""Bytes for each token, times (hidden + intermediate): of a batch of mixed lengths, and of one long row alone. From the
peak of torch's allocator on an H200 (0.6B 2.1 GiB and 4B 5.9 GiB at 32,768 tokens; 4B 4.4 GiB for a row of 32,768)."""

ROW_TABLE_BYTES = 4
LARGEST_PAGE_TOKENS = 64
FRACTION_WITHOUT_POOL = 0.95
"""The pool's share where no keys and values are kept: the pool then takes no memory, it only limits how many tokens run
at once, and a large pool never makes a row wait."""

WATCHDOG_S = 300
"""The first forward pass may compile kernels for over a minute. The feeder notices an engine that hangs later."""

MODELS = "embedcli.engines.sglang.models"
"""Where SGLang finds our model class, when its environment names this package."""

OWN_FORWARD_VERSION = "0.5.23"
OWN_FORWARD_CAPABILITY = (9, 0)
OWN_FORWARD_SHAPES = {(1_024, 3_072, 16, 8, 128), (2_560, 9_728, 32, 8, 128)}
"""Where our forward pass was compared with SGLang's: SGLang's version, an H200 (an H100 has the same processor),
Qwen3-Embedding 0.6B and 4B."""

SMALLER_MODEL = "Qwen/Qwen3-Embedding-0.6B"
SMALLER_MODEL_HIDDEN = 1_024


@dataclass(frozen=True, slots=True)
class SGLangSettings:
    """What the user may ask for. `gpu_memory` is GiB, or a share of the card where it is at most 1."""

    gpus: tuple[int, ...] = (0,)
    gpu_memory: float | None = None
    batch_tokens: int | None = None
    quantization: str | None = None
    max_tokens: int | None = None
    """The longest row that will be sent, where it is shorter than the model allows: that row has to fit."""

    forward: str = "own"
    """Which forward pass: `own` (ours, where it was tested) or `sglang` (SGLang's)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen3 model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    tied: bool
    usual: bool = True
    """Whether it has silu, no bias, and positions that are not scaled."""

    @property
    def layer_weights(self) -> int:
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def embedding_weights(self) -> int:
        """Counted twice where the output matrix is a second one: SGLang makes it, though nothing is generated."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def weights_bytes(self, quantization: str | None) -> int:
        """fp8 makes the layers smaller, not the embeddings."""
        return self.layer_weights * (1 if quantization == "fp8" else 2) + self.embedding_weights * 2

    @property
    def pool_token_bytes(self) -> int:
        """Keys and values of one token in all layers, bfloat16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """SGLang's arguments, with the longest batch and row that the engine then takes, and the memory that it needs."""

    arguments: dict[str, Any]
    batch_tokens: int
    max_tokens: int
    need_bytes: int

    @property
    def warm_up(self) -> list[tuple[int, int]]:
        """(rows, tokens a row): a full batch, then the longest row, so that memory peaks before work begins."""
        length = min(512, self.max_tokens)
        return [(max(1, min(64, self.batch_tokens // length)), length), (1, self.max_tokens)]


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The sizes in a config.json. SGLang knows other families too, but their pooling was never compared with ours."""
    if config.get("model_type") != "qwen3":
        raise EngineError(
            f"with SGLang we run Qwen3 embedding models only, not `{config.get('model_type')}`", "use `--engine torch`"
        )
    try:
        heads = int(config["num_attention_heads"])
        return Shape(
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            usual=_is_usual(config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"the model's config.json is not complete: `{error}`", "name another model") from error


def _is_usual(config: Mapping[str, Any]) -> bool:
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    return not config.get("attention_bias") and config.get("hidden_act", "silu") == "silu" and kind == "default"


def own_forward_problem(card: Card, shape: Shape, asked: SGLangSettings, version: str) -> str | None:
    """Why our forward pass is not used: where it was not compared with SGLang's. None where it was."""
    sizes = (shape.hidden, shape.intermediate, shape.heads, shape.kv_heads, shape.head_dim)
    if version != OWN_FORWARD_VERSION:
        return f"ours was tested with SGLang {OWN_FORWARD_VERSION}, not {version}"
    if card.capability != OWN_FORWARD_CAPABILITY:
        return f"ours was not tested on {card.name}"
    if sizes not in OWN_FORWARD_SHAPES or not shape.usual:
        return "ours was not tested with a model of these sizes"
    if asked.quantization not in (None, "fp8"):
        return f"ours was not tested with {asked.quantization}"
    return None


def plan(card: Card, shape: Shape, *, max_tokens: int, asked: SGLangSettings, flash: bool = True) -> EngineArguments:
    """The arguments for this model on this card. EngineError says what it needs and what the card has.

    `max_tokens` is the model's. Without `flash` SGLang chooses the attention, for a card on which FlashAttention 3
    turned out not to start.
    """
    if card.capability < LEAST_CAPABILITY:
        has, needed = (".".join(map(str, version)) for version in (card.capability, LEAST_CAPABILITY))
        raise EngineError(
            f"SGLang runs in bfloat16, for which a card has capability {needed} or more, this one {has}: `{card.name}`",
            "use `--engine torch`",
        )
    plans = _plans(card, shape, max_tokens=max_tokens, asked=asked, flash=flash)
    fitting = [candidate for candidate in plans if candidate.need_bytes <= usable_bytes(card, asked)]
    if not fitting:
        raise _too_small(plans[-1], card, shape, max_tokens=max_tokens, asked=asked, flash=flash)
    frugal = (candidate for candidate in fitting if candidate.need_bytes <= SHARE_TAKEN * card.total_bytes)
    return next(frugal, fitting[0])


def usable_bytes(card: Card, asked: SGLangSettings) -> int:
    """How much of the card's memory we may use: all that is free now, or less where the user says so."""
    if asked.gpu_memory is None:
        return card.free_bytes
    limit = asked.gpu_memory * (card.total_bytes if asked.gpu_memory <= 1 else GIB)
    return min(card.free_bytes, int(limit))


def has_flash(card: Card) -> bool:
    """Whether SGLang's FlashAttention 3 runs on this card: with it no keys and values are kept, so the pool is free."""
    return card.capability[0] == 8 or card.capability == (9, 0)


def _plans(card: Card, shape: Shape, *, max_tokens: int, asked: SGLangSettings, flash: bool) -> list[EngineArguments]:
    sizes = BATCH_TOKENS[1:] if card.total_bytes < SMALL_CARD_BYTES else BATCH_TOKENS
    longest = min(max_tokens, asked.max_tokens or max_tokens)
    without_pool = flash and has_flash(card)
    return [
        _plan(card, shape, batch, context=max_tokens + 1, longest=longest, asked=asked, without_pool=without_pool)
        for batch in ([asked.batch_tokens] if asked.batch_tokens else sizes)
    ]


def _plan(
    card: Card,
    shape: Shape,
    batch_tokens: int,
    *,
    context: int,
    longest: int,
    asked: SGLangSettings,
    without_pool: bool,
) -> EngineArguments:
    rows = 512 if card.total_bytes < SMALL_CARD_BYTES else 1024
    weights = shape.weights_bytes(asked.quantization)
    width = shape.hidden + shape.intermediate
    activations = width * max(BATCH_ACTIVATION_BYTES * batch_tokens, ROW_ACTIVATION_BYTES * longest)
    fixed = weights + CONTEXT_BYTES + rows * context * ROW_TABLE_BYTES
    # for the running batch, the next batch, which is prepared meanwhile, and the longest row waiting behind them
    pool = (longest + LARGEST_PAGE_TOKENS + 2 * batch_tokens) * shape.pool_token_bytes
    need = fixed + activations + (0 if without_pool else pool)
    # quantized while loading: the weights are there in full before they are smaller
    need = max(need, shape.weights_bytes(None) + CONTEXT_BYTES)
    fraction = FRACTION_WITHOUT_POOL if without_pool else _fraction(fixed + pool, card.free_bytes)
    counted = int((fixed + (longest + LARGEST_PAGE_TOKENS) * shape.pool_token_bytes) / FRACTION_WITHOUT_POOL)
    if counted > card.free_bytes:
        # the pool takes no memory, but SGLang must count enough for the longest row, or that row waits for ever
        need = max(need, counted)
    arguments = _arguments(shape, asked, context=context, rows=rows, batch_tokens=batch_tokens) | {
        "attention_backend": "fa3" if without_pool else None,
        "prefill_only_disable_kv_cache": without_pool,
        "mem_fraction_static": fraction,
    }
    return EngineArguments(arguments=arguments, batch_tokens=batch_tokens, max_tokens=longest, need_bytes=need)


def _fraction(static_bytes: int, free_bytes: int) -> float:
    """SGLang's share for weights and pool, of what is free when it starts; the rest is for activations."""
    return min(0.95, math.ceil(1000 * static_bytes / free_bytes) / 1000)


def _arguments(shape: Shape, asked: SGLangSettings, *, context: int, rows: int, batch_tokens: int) -> dict[str, Any]:
    override: dict[str, Any] = {"is_matryoshka": True}
    if context > shape.positions:
        # SGLang takes one token less than its context; positions are computed, so one more costs nothing
        override["max_position_embeddings"] = context
    return {
        "is_embedding": True,
        "skip_tokenizer_init": True,
        "dtype": "bfloat16",
        "random_seed": 0,
        "chunked_prefill_size": -1,
        "disable_radix_cache": True,
        "disable_prefill_cuda_graph": True,
        "disable_decode_cuda_graph": True,
        "context_length": context,
        "max_prefill_tokens": batch_tokens,
        "max_running_requests": rows,
        "quantization": asked.quantization,
        "watchdog_timeout": WATCHDOG_S,
        "allow_auto_truncate": False,
        "trust_remote_code": False,
        "enable_metrics": False,
        "log_level": "error",
        "sleep_on_idle": True,
        "json_model_override_args": json.dumps(override),
    }


def _too_small(
    smallest: EngineArguments, card: Card, shape: Shape, *, max_tokens: int, asked: SGLangSettings, flash: bool
) -> EngineError:
    """The error says what is needed, what there is, and what to type: first whether another program or a flag of this
    run takes the memory, then which settings of a new index would fit."""

    def fits(asked: SGLangSettings, card: Card = card) -> bool:
        usable = usable_bytes(card, asked)
        plans = _plans(card, shape, max_tokens=max_tokens, asked=asked, flash=flash)
        return any(candidate.need_bytes <= usable for candidate in plans)

    has = f"the card has {usable_bytes(card, asked) / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB to give"
    message = f"the model needs {smallest.need_bytes / GIB:.1f} GiB, {has}: `{card.name}`"
    without = {"--batch-tokens": replace(asked, batch_tokens=None), "--gpu-memory": replace(asked, gpu_memory=None)}
    to_blame = [f"leave `{flag}` out" for flag, other in without.items() if fits(other)]
    if fits(asked, replace(card, free_bytes=card.total_bytes - UNUSED_CARD_BYTES)):
        wait = "`nvidia-smi` lists them; run the same command again when they have ended"
        return EngineOutOfMemory(f"{message}, other programs use the rest", ", or ".join([wait, *to_blame]))
    if to_blame:
        return EngineError(message, to_blame[0])
    others = {
        "`--max-tokens 512`": fits(replace(asked, max_tokens=512)),
        "`--quantization fp8`": fits(replace(asked, quantization="fp8")),
        f"`--model {SMALLER_MODEL}`": shape.hidden > SMALLER_MODEL_HIDDEN,
    }
    named = " or ".join(name for name, helps in others.items() if helps)
    return EngineError(message, f"for a new index: {named}" if named else CPU_HINT)
