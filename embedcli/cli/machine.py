"""The commands that are about this machine: bench, doctor, pull.

In: flags. Out: lines on stdout (`--json`: one object), an exit code.
Not here: the looking (verbs/doctor.py), the measuring (verbs/bench.py), fetching a model (models/resolve.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli import config
from embedcli.cli import flags
from embedcli.cli.app import AsJson, Debug, app, tools_maker
from embedcli.errors import EmbedcliError, Stopped
from embedcli.report import say

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation
    from embedcli.verbs.bench import Figures
    from embedcli.verbs.doctor import Line

WIDTH = 15
DEFAULT_MB = {"cpu": 0.3, "mps": 5.0, "cuda": 40.0}


@app.command()
def bench(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="As of `ingest`.")] = None,
    dim: Annotated[int | None, typer.Option(help="As of `ingest`.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="As of `ingest`.")] = None,
    device: Annotated[str | None, typer.Option(help="As of `ingest`.")] = None,
    engine: Annotated[str, typer.Option(help="As of `ingest`.")] = "auto",
    docs: Annotated[Path | None, typer.Option(help="Measure on these documents, not on generated ones.")] = None,
    size: Annotated[
        float | None, typer.Option(help="Text to generate; 0.3 on a CPU, 40 on a card.", metavar="MB")
    ] = None,
    reference: Annotated[bool, typer.Option(help="Measure sentence-transformers too.")] = True,
    corpus_gb: Annotated[float, typer.Option(help="Estimate the hours for so much text.", metavar="GB")] = 1.0,
    price_per_hour: Annotated[float | None, typer.Option(help="Of the machine: the estimate has a cost.")] = None,
    gpu_memory: flags.GpuMemory = None,
    batch_tokens: flags.BatchTokens = None,
    quantization: flags.Quantization = None,
    gpus: flags.Gpus = None,
    engine_forward: flags.EngineForward = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure this machine: the whole ingest, its engine alone, sentence-transformers; hours for a corpus."""
    from embedcli.config import Options
    from embedcli.verbs.bench import generate, measure

    with tempfile.TemporaryDirectory(prefix="embedcli-bench-") as folder:
        place = Path(folder)
        asked = Options(
            index=place / "index", sources=(str(docs or place / "docs"),), model=model, dim=dim,
            max_tokens=max_tokens, device=flags.device_name(device),
            quantization=flags.quantization_name(quantization),
        )  # fmt: skip
        card = config.CardFlags(gpu_memory, batch_tokens, flags.card_numbers(gpus), flags.forward_name(engine_forward))
        tools = tools_maker(context)(flags.engine_name(engine), say, card=card, show_log=say if debug else None)
        if docs is None:
            (place / "docs").mkdir()
            generate(place / "docs", _sized(size, tools.device_kind(asked)))
        figures = measure(asked, tools=tools, reference=reference, say=say, cards=card.gpus or (0,))
    if as_json:
        print(json.dumps(_json(figures, corpus_gb=corpus_gb, price_per_hour=price_per_hour)))
    else:
        print(_table(figures, corpus_gb=corpus_gb, price_per_hour=price_per_hour))


@app.command()
def doctor(
    context: typer.Context,
    index: Annotated[
        str | None, typer.Argument(metavar="[INDEX]", help="The index, also one still to be made.")
    ] = None,
    index_option: flags.IndexFolder = None,
    model: Annotated[str | None, typer.Option(help="Look for this model; else the index's, else the default.")] = None,
    start_engine: Annotated[
        bool, typer.Option("--start", help="Start the engine and embed the probe set too.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look at all that a run needs from this machine; each line is well, or says what to type."""
    from embedcli.verbs import doctor as looking

    lines: list[Line] = []

    def tell(line: Line) -> None:
        lines.append(line)
        if not as_json:
            _print(line)

    folder, current = flags.index_of(index, index_option), None
    try:
        current = _current(folder)
    except EmbedcliError as error:
        tell(_amiss("index", error))
    for line in looking.examine(folder, model=model, settings=current.settings if current else None):
        tell(line)
    if start_engine and not any(line.code for line in lines):
        tools = tools_maker(context)("auto", say, show_log=say if debug else None)
        tell(_started(lambda: looking.start_engine(folder, model, tools)))
    code = next((line.code for line in lines if line.code), 0)
    if as_json:
        print(json.dumps({"exit_code": code, "lines": [dataclasses.asdict(line) for line in lines]}))
    raise typer.Exit(code)


def _sized(size_mb: float | None, device: str) -> int:
    return int((size_mb if size_mb is not None else DEFAULT_MB[device]) * 1_000_000)


def _json(figures: Figures, *, corpus_gb: float, price_per_hour: float | None) -> dict[str, Any]:
    hours = figures.hours(corpus_gb)
    return {
        "exit_code": 0,
        **dataclasses.asdict(figures),
        "of_engine": round(figures.whole / figures.alone, 3),
        "of_reference": round(figures.whole / figures.reference, 3) if figures.reference else None,
        "hours": round(hours, 3),
        "cost": None if price_per_hour is None else round(hours * price_per_hour, 2),
    }


def _table(figures: Figures, *, corpus_gb: float, price_per_hour: float | None) -> str:
    """At 80 columns."""
    hours = figures.hours(corpus_gb)
    cost = "" if price_per_hour is None else f", {hours * price_per_hour:,.2f} at {price_per_hour:g} an hour"
    memory = figures.peak_gpu_bytes if figures.peak_gpu_bytes is not None else figures.peak_rss_bytes
    kind = "card" if figures.peak_gpu_bytes is not None else "parent's"
    rates = [("whole ingest", figures.whole), ("engine alone", figures.alone)]
    rates += [("sentence-transformers", figures.reference)] if figures.reference else []
    rows = [
        f"{name:24}{rate:>12,.0f}{rate / figures.alone:>12.2f}"
        + (f"{rate / figures.reference:>12.2f}" if figures.reference else "")
        for name, rate in rates
    ]
    rows += [f"no sentence-transformers: {figures.no_reference}"] if figures.no_reference else []
    return "\n".join([
        f"{figures.model}, {figures.dim} dimensions, on {figures.device}",
        f"{figures.chunks:,} chunks, {figures.tokens:,} tokens, {figures.tokens / max(1, figures.chunks):.0f} a chunk",
        "",
        f"{'':24}{'tokens/s':>12}{'of engine':>12}" + (f"{'of s-t':>12}" if figures.reference else ""),
        *rows,
        "",
        f"engine had work {figures.busy:.1%} of the time; padding {figures.padding:.1%}",
        f"peak {kind} memory {memory / (1 << 30):.1f} GiB; ready after {figures.load_s:.0f} s",
        f"{corpus_gb:g} GB of such text: {hours:,.1f} h{cost}",
    ])  # fmt: skip


def _current(folder: Path) -> Generation | None:
    from embedcli.index.disk import Disk
    from embedcli.index.generations import Index

    index = Index(folder, disk=Disk())
    return index.current() if folder.exists() and index.current_number() is not None else None


def _started(start: Callable[[], str]) -> Line:
    from embedcli.verbs.doctor import Line

    try:
        return Line("engine", start())
    except Stopped:
        raise
    except EmbedcliError as error:
        return _amiss("engine", error)


def _amiss(what: str, error: EmbedcliError) -> Line:
    from embedcli.verbs.doctor import Line

    return Line(what, str(error), False, error.hint, error.exit_code)


def _print(line: Line) -> None:
    mark = "ok   " if line.well else "amiss"
    print(f"{mark} {line.what:<{WIDTH}} {line.found}" + (f"\n      {'':<{WIDTH}} {line.mend}" if line.mend else ""))
    sys.stdout.flush()


@app.command()
def pull(
    model: Annotated[
        str | None, typer.Argument(help="A hub id, ID@COMMIT for an older commit; this machine's default otherwise.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch a model, so that a later run needs no network."""
    from embedcli.engines import choose, nvml
    from embedcli.models import resolve

    name = model or choose.choose_default(has_gpu=nvml.has_nvidia_card())[0]
    found = resolve.pull(name, report=say)
    print(f"folder {found.folder}")
    print(f"commit {found.commit or '-'}")
    print(f"sha256 {found.weights_digest}")
