"""`--workers` of `ingest`: the workers of a Ray cluster.

In: the value as typed, the tools of the run. Out: tools with a workforce, or UsageError.
Not here: the cluster (cluster/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedcli.config import CardFlags, CpuFlags, Workers
from embedcli.errors import UsageError
from embedcli.report import Say

if TYPE_CHECKING:
    from embedcli.run.tools import Tools

FORM = "`ray://auto`, `ray://auto,max=8` or `ray://auto,min=2,max=8`"

WorkersFlag = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Let the workers of the Ray cluster of this machine do the work.",
        metavar="ray://auto[,max=N]",
    ),
]


def with_workers(tools: Tools, value: str | None, *, engine: str, card: CardFlags, cpu: CpuFlags, say: Say) -> Tools:
    """The tools of a run over the workers that the flag names; without the flag the tools as they are."""
    if value is None:
        return tools
    workers = parse_workers(value)
    if card.gpus is not None:
        raise UsageError(
            "`--gpus` names cards of this machine, and each worker has one of its own", "leave `--gpus` out"
        )
    from embedcli.cluster.on_ray import on_ray

    return on_ray(tools, workers, engine=engine, card=card, cpu=cpu, say=say)


def parse_workers(value: str) -> Workers:
    """`ray://auto,min=1,max=8`. Raises UsageError."""
    place, *bounds = value.split(",")
    if place.startswith("ray://") and place != "ray://auto":
        from embedcli.cluster.on_ray import client_refused

        raise client_refused(place)
    numbers = dict(bound.split("=") for bound in bounds if bound.count("=") == 1)
    known = len(numbers) == len(bounds) and numbers.keys() <= {"min", "max"}
    if place != "ray://auto" or not known or not all(number.isdecimal() for number in numbers.values()):
        raise UsageError(f"`--workers {value}` is not {FORM}", "leave the flag out to work on this machine alone")
    most = numbers.get("max")
    return Workers(int(numbers.get("min", 1)), None if most is None else int(most))
