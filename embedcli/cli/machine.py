"""The commands that are about this machine: bench, pull.

In: flags. Out: lines on stdout (`--json`: one object), an exit code.
Not here: measuring (verbs/bench/measure.py), fetching a model (models/resolve.py).
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli import config
from embedcli.cli import flags
from embedcli.cli.app import AsJson, Debug, print_json, tools_maker
from embedcli.config import LEAVE_OUT
from embedcli.errors import UsageError
from embedcli.report import say

if TYPE_CHECKING:
    from embedcli.verbs.bench.measure import Figures

DEFAULT_MB = {"cpu": 0.3, "mps": 5.0, "cuda": 40.0}


def bench(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="The model, as for `ingest`.")] = None,
    dim: Annotated[int | None, typer.Option(help="The number of dimensions, as for `ingest`.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens in a chunk, as for `ingest`.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps, as for `ingest`.")] = None,
    engine: Annotated[str, typer.Option(help="auto, sglang, openvino or torch, as for `ingest`.")] = "auto",
    docs: Annotated[Path | None, typer.Option(help="Measure with these documents instead of generated ones.")] = None,
    size: Annotated[
        float | None,
        typer.Option(help="How much text to generate; default: 0.3 on a CPU, 40 on a card.", metavar="MB"),
    ] = None,
    reference: Annotated[bool, typer.Option(help="Also measure sentence-transformers.")] = True,
    corpus_gb: Annotated[float, typer.Option(help="Estimate the hours for this much text.", metavar="GB")] = 1.0,
    price_per_hour: Annotated[
        float | None, typer.Option(help="The price of the machine; the estimate then shows the cost.")
    ] = None,
    gpu_memory: flags.GpuMemory = None,
    batch_tokens: flags.BatchTokens = None,
    quantization: flags.Quantization = None,
    gpus: flags.Gpus = None,
    engine_forward: flags.EngineForward = None,
    threads: flags.Threads = None,
    precision: flags.Precision = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure the speed of this machine and estimate hours for a corpus.

    Measures the whole `ingest`, its engine alone, and sentence-transformers on the same chunks.
    """
    from embedcli.config import Options
    from embedcli.verbs.bench.measure import generate, measure

    _check_amounts({"--size": size, "--corpus-gb": corpus_gb, "--price-per-hour": price_per_hour})
    with tempfile.TemporaryDirectory(prefix="embedcli-bench-") as folder:
        place = Path(folder)
        asked = Options(
            index=place / "index", sources=(str(docs or place / "docs"),), model=model, dim=dim,
            max_tokens=max_tokens, device=flags.device_name(device),
            quantization=flags.quantization_name(quantization),
        )  # fmt: skip
        card = config.CardFlags(gpu_memory, batch_tokens, flags.card_numbers(gpus), flags.forward_name(engine_forward))
        cpu = config.CpuFlags(threads, flags.precision_name(precision))
        tools = tools_maker(context)(
            flags.engine_name(engine), say, card=card, cpu=cpu, show_log=say if debug else None
        )
        if docs is None:
            (place / "docs").mkdir()
            generate(place / "docs", _sized(size, tools.device_kind(asked)))
        figures = measure(asked, tools=tools, reference=reference, say=say, cards=card.gpus or (0,))
    if as_json:
        print_json(_json(figures, corpus_gb=corpus_gb, price_per_hour=price_per_hour))
    else:
        print(_table(figures, corpus_gb=corpus_gb, price_per_hour=price_per_hour))


def _check_amounts(given: Mapping[str, float | None]) -> None:
    for flag, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"`{flag}` must be more than 0, not `{value:g}`", LEAVE_OUT)


def _sized(size_mb: float | None, device: str) -> int:
    return max(1, int((size_mb if size_mb is not None else DEFAULT_MB[device]) * 1_000_000))


def _json(figures: Figures, *, corpus_gb: float, price_per_hour: float | None) -> dict[str, Any]:
    hours = figures.hours(corpus_gb)
    return {
        "exit_code": 0,
        **dataclasses.asdict(figures),
        "of_engine": round(figures.whole / figures.alone, 3),
        "of_reference": round(figures.whole / figures.reference, 3) if figures.reference else None,
        "workers_projected": figures.workers_projected,
        "hours": round(hours, 3),
        "cost": None if price_per_hour is None else round(hours * price_per_hour, 2),
    }


def _table(figures: Figures, *, corpus_gb: float, price_per_hour: float | None) -> str:
    """The figures as a table of at most 80 columns."""
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
        f"the engine had work {figures.busy:.1%} of the time; padding {figures.padding:.1%}",
        f"peak {kind} memory {memory / (1 << 30):.1f} GiB; engine ready after {figures.load_s:.0f} s",
        f"{corpus_gb:g} GB of such text: {hours:,.1f} h{cost}",
        *_projected(figures),
    ])  # fmt: skip


def _projected(figures: Figures) -> list[str]:
    """A line that says of itself that nothing of it was run."""
    if figures.run_cpu_s_per_million is None:
        return []
    cost = f"{figures.run_cpu_s_per_million:.2f} CPU s/M tokens"
    return [f"projected, not run: at {cost} one run feeds {figures.workers_projected:,} such workers"]


def pull(
    model: Annotated[
        str | None,
        typer.Argument(help="A hub id, or ID@COMMIT for an older commit; default: the default of this machine."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Download a model, so that later runs need no network."""
    from embedcli.engines import choose, nvml
    from embedcli.models import resolve

    name = model or choose.choose_default(has_gpu=nvml.has_nvidia_card())[0]
    found = resolve.pull(name, report=say)
    print(f"folder {found.folder}")
    print(f"commit {found.commit or '-'}")
    print(f"sha256 {found.weights_digest}")
