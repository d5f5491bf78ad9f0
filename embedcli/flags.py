"""Flags that several verbs take, and the checks of their values.

In: what was typed. Out: values that can be meant, or typer's BadParameter (exit 2).
Not here: flags of one verb alone (cli.py, keeper_cli.py, machine_cli.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

import typer

LEAST_BATCH_TOKENS = 512

GpuMemory = Annotated[
    float | None, typer.Option(help="SGLang: GiB of the card to use, or a share of it up to 1.", metavar="GIB")
]
BatchTokens = Annotated[int | None, typer.Option(help="SGLang: most tokens of a batch; chosen from the card.")]
Quantization = Annotated[str | None, typer.Option(help="SGLang: fp8, faster and smaller; other vectors.")]
Gpus = Annotated[str | None, typer.Option(help="SGLang: the cards to use, such as 0,1; the first otherwise.")]


@dataclass(frozen=True)
class CardFlags:
    """How a run is to use the cards; nothing of it changes a vector."""

    gpu_memory: float | None = None
    batch_tokens: int | None = None
    gpus: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.gpu_memory is not None and not 0 < self.gpu_memory < inf:
            raise typer.BadParameter(f"`{self.gpu_memory:g}` is no amount over 0", param_hint="--gpu-memory")
        if self.batch_tokens is not None and self.batch_tokens < LEAST_BATCH_TOKENS:
            raise typer.BadParameter(
                f"`{self.batch_tokens}` is under {LEAST_BATCH_TOKENS}", param_hint="--batch-tokens"
            )

    def given(self) -> list[str]:
        """The flags that were used, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


NO_CARD_FLAGS = CardFlags()


def card_numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise typer.BadParameter(f"`{text}` is no list of cards such as `0,1`", param_hint="--gpus")
    return tuple(dict.fromkeys(int(number) for number in numbers))


def engine_name(text: str) -> str:
    return one_of("--engine", text, ("auto", "sglang", "torch")) or "auto"


def device_name(text: str | None) -> str | None:
    return one_of("--device", text, (None, "cpu", "cuda", "mps"))


def quantization_name(text: str | None) -> str | None:
    return one_of("--quantization", text, (None, "fp8"))


def one_of(flag: str, value: str | None, allowed: tuple[str | None, ...]) -> str | None:
    if value not in allowed:
        names = ", ".join(name for name in allowed if name)
        raise typer.BadParameter(f"`{value}` is not one of {names}", param_hint=flag)
    return value
