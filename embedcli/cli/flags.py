"""Flags that several verbs take, and the checks of their values.

In: what was typed. Out: values that can be meant, or UsageError (exit 2), which `--json` tells as an object too.
Not here: flags of one verb alone (ingest.py, upkeep.py, machine.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedcli.config import LEAVE_OUT, index_folder
from embedcli.errors import UsageError

IndexArgument = Annotated[str | None, typer.Argument(metavar="[INDEX]", help="The index; or say it with --index.")]
IndexFolder = Annotated[
    str | None, typer.Option("--index", help="The index; else EMBEDCLI_INDEX, else ./embedcli-index.", metavar="INDEX")
]
GpuMemory = Annotated[
    float | None, typer.Option(help="SGLang: GiB of the card to use, or a share of it up to 1.", metavar="GIB")
]
BatchTokens = Annotated[int | None, typer.Option(help="SGLang: most tokens of a batch; chosen from the card.")]
Quantization = Annotated[str | None, typer.Option(help="SGLang: fp8, faster and smaller; other vectors.")]
EngineForward = Annotated[
    str | None, typer.Option(help="SGLang: whose forward pass, own (faster, where it was tested) or sglang.")
]
Gpus = Annotated[str | None, typer.Option(help="SGLang: the cards to use, such as 0,1; the first otherwise.")]


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
        raise UsageError(f"`--gpus {text}` is no list of cards such as `0,1`", LEAVE_OUT)
    return tuple(dict.fromkeys(int(number) for number in numbers))


def engine_name(text: str) -> str:
    return one_of("--engine", text, ("auto", "sglang", "torch")) or "auto"


def device_name(text: str | None) -> str | None:
    return one_of("--device", text, (None, "cpu", "cuda", "mps"))


def quantization_name(text: str | None) -> str | None:
    return one_of("--quantization", text, (None, "fp8"))


def forward_name(text: str | None) -> str | None:
    return one_of("--engine-forward", text, (None, "own", "sglang"))


def one_of(flag: str, value: str | None, allowed: tuple[str | None, ...]) -> str | None:
    if value not in allowed:
        names = ", ".join(name for name in allowed if name)
        raise UsageError(f"`{flag} {value}` is not one of {names}", LEAVE_OUT)
    return value
