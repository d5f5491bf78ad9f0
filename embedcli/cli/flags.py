"""Flags that several commands take, and the checks of their values.

In: the values as typed. Out: checked values, or UsageError (exit 2), which `--json` prints as an object too.
Not here: flags of only one command (in the file of that command).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.config import DEFAULT_MAX_GONE_PERCENT, LEAVE_OUT, Stream, index_folder
from embedcli.errors import UsageError
from embedcli.records import PLAIN_RULE, RecordRule
from embedcli.report import say_warning
from embedcli.urls import absolute

if TYPE_CHECKING:
    from embedcli.index.generations import Index

IndexArgument = Annotated[
    str | None, typer.Argument(metavar="[INDEX]", help="The folder of the index; --index means the same.")
]
IndexFolder = Annotated[
    str | None,
    typer.Option(
        "--index", help="The folder of the index; default: EMBEDCLI_INDEX, else ./embedcli-index.", metavar="INDEX"
    ),
]
GpuMemory = Annotated[
    float | None,
    typer.Option(help="SGLang: how much memory of the card to use, in GiB, or as a share up to 1.", metavar="GIB"),
]
BatchTokens = Annotated[
    int | None, typer.Option(help="SGLang: the most tokens in a batch; default: chosen to fit the card.")
]
Quantization = Annotated[
    str | None, typer.Option(help="SGLang: fp8 is faster and needs less memory, but gives other vectors.")
]
EngineForward = Annotated[
    str | None,
    typer.Option(help="SGLang: whose forward pass, own (faster, where it was tested) or sglang; default: own."),
]
Gpus = Annotated[
    str | None, typer.Option(help="SGLang: the numbers of the cards to use, such as 0,1; default: the first card.")
]

Threads = Annotated[
    int | None, typer.Option(help="Threads of the engine on a CPU; default: the cores that this process may use.")
]
Precision = Annotated[
    str | None, typer.Option(help="float32: compute in float32 on a CPU that has bfloat16, at half the speed.")
]


def index_of(argument: str | None, option: str | None) -> Path:
    """The folder of the index. Raises UsageError when argument and option name different folders."""
    folder = index_folder(option if argument is None else argument)
    if option is not None and index_folder(option) != folder:
        raise UsageError(f"`{argument}` and `--index {option}` are two different indexes", "name only one index")
    return folder


def opened_index(argument: str | None, option: str | None) -> Index:
    """The index that a command works on; its warnings go to stderr."""
    from embedcli.index.mirror.place import open_index

    return open_index(index_of(argument, option), warn=say_warning)


def card_numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise UsageError(f"`--gpus {text}` must be card numbers such as `0,1`", LEAVE_OUT)
    return tuple(dict.fromkeys(int(number) for number in numbers))


def mode_bits(text: str | None) -> int | None:
    """The bits of `--mode`, which is octal as for chmod."""
    try:
        return None if text is None else int(text, 8)
    except ValueError:
        raise UsageError(f"`--mode {text}` is not octal", "700: only you; 750: your group reads it too") from None


def max_gone(values: list[str] | None) -> float:
    """The general percentage of `--max-gone`, the last one given."""
    general = [value for value in values or () if "=" not in value]
    return _percent(general[-1], general[-1]) if general else DEFAULT_MAX_GONE_PERCENT


def max_gone_of(values: list[str] | None) -> tuple[tuple[str, float], ...]:
    """The percentages of single folders: (absolute path, percent)."""
    named = [value.rpartition("=") for value in values or () if "=" in value]
    return tuple((absolute(folder), _percent(f"{folder}={text}", text)) for folder, _, text in named)


def _percent(value: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"`--max-gone {value}` is no percentage", "give a number from 0 to 100, or FOLDER=NUMBER for one folder"
        ) from None


def engine_name(text: str) -> str:
    return one_of("--engine", text, ("auto", "sglang", "openvino", "torch")) or "auto"


def device_name(text: str | None) -> str | None:
    return one_of("--device", text, (None, "cpu", "cuda", "mps"))


def quantization_name(text: str | None) -> str | None:
    return one_of("--quantization", text, (None, "fp8"))


def precision_name(text: str | None) -> str | None:
    return one_of("--precision", text, (None, "float32"))


def forward_name(text: str | None) -> str | None:
    return one_of("--engine-forward", text, (None, "own", "sglang"))


def one_of(flag: str, value: str | None, allowed: tuple[str | None, ...]) -> str | None:
    if value not in allowed:
        names = ", ".join(name for name in allowed if name)
        raise UsageError(f"`{flag} {value}` is not one of {names}", LEAVE_OUT)
    return value


def stream_of(records: list[str] | None, name: str | None, *, whole: bool) -> Stream | None:
    """The records on stdin, where `--records -` says that there are some."""
    if "-" not in (records or ()):
        if name is not None or whole:
            flag = "--name" if name is not None else "--whole"
            raise UsageError(f"`{flag}` is for records on stdin", "add `--records -`")
        return None
    if name is None:
        raise UsageError("records on stdin need a name", "add one: `--records - --name tickets`")
    if name[:1] in ("", "/", ".") or not name.isprintable():
        raise UsageError(f"`--name {name}` cannot be the name of records", "use letters, such as `--name tickets`")
    return Stream(name, whole)


def record_rules(
    records: list[str] | None,
    text: list[str] | None,
    id_field: str | None,
    title: str | None,
    meta: list[str] | None,
    *,
    label: bool,
) -> tuple[RecordRule, ...]:
    """A rule for each pattern of `--records`; the fields alone are for files that are records without being named. An
    empty pattern is the plain rule, which forgets the remembered ones."""
    patterns = [pattern for pattern in records or () if pattern != "-"]
    rule = RecordRule(
        text=tuple(text or ("text",)), id=id_field or "id", title=title or "title",
        meta=None if meta is None else tuple(filter(None, meta)), label=label,
    )  # fmt: skip
    forgetting = (PLAIN_RULE,) if "" in patterns else ()
    named = tuple(replace(rule, pattern=pattern) for pattern in patterns if pattern)
    alone = () if rule == PLAIN_RULE else (rule,)
    return (*forgetting, *(named or alone))
