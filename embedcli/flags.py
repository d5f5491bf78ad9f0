"""Flags that several verbs take, and the checks of their values.

In: what was typed. Out: values that can be meant, or UsageError (exit 2), which `--json` tells as an object too.
Not here: flags of one verb alone (cli.py, keeper_cli.py, machine_cli.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from embedcli.config import index_folder
from embedcli.errors import UsageError

LEAST_BATCH_TOKENS = 512
_LEAVE_OUT = "leave the flag out for what is chosen without it"

IndexArgument = Annotated[str | None, typer.Argument(metavar="[INDEX]", help="The index; or say it with --index.")]
IndexFolder = Annotated[
    str | None, typer.Option("--index", help="The index; else EMBEDCLI_INDEX, else ./embedcli-index.", metavar="INDEX")
]
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
            raise UsageError(f"`--gpu-memory {self.gpu_memory:g}` is no amount over 0", _LEAVE_OUT)
        if self.batch_tokens is not None and self.batch_tokens < LEAST_BATCH_TOKENS:
            raise UsageError(f"`--batch-tokens {self.batch_tokens}` is under {LEAST_BATCH_TOKENS}", _LEAVE_OUT)

    def given(self) -> list[str]:
        """The flags that were used, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


NO_CARD_FLAGS = CardFlags()


def index_of(argument: str | None, option: str | None) -> Path:
    """The folder of an index that may be named in two ways, which then have to be the same."""
    folder = index_folder(option if argument is None else argument)
    if option is not None and index_folder(option) != folder:
        raise UsageError(f"`{argument}` and `--index {option}` are two indexes", "name the one that is meant")
    return folder


def card_numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise UsageError(f"`--gpus {text}` is no list of cards such as `0,1`", _LEAVE_OUT)
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
        raise UsageError(f"`{flag} {value}` is not one of {names}", _LEAVE_OUT)
    return value
