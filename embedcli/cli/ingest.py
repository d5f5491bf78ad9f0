"""`embedcli ingest` on the command line.

In: flags. Out: progress and closing lines on stderr, with `--json` one object on stdout, an exit code.
Not here: the run (ingest.py of the package above), flags that other commands take too (flags.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli import config
from embedcli.cli import flags
from embedcli.cli.app import AsJson, Debug, app, tools_maker
from embedcli.errors import StorageError

if TYPE_CHECKING:
    from embedcli.report import Summary

MIB = 1 << 20

Sources = Annotated[
    list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Files and folders; without one, those remembered.")
]
ModelName = Annotated[
    str | None, typer.Option(help="A folder, a hub id such as Qwen/Qwen3-Embedding-0.6B, or `minilm`.")
]
Dim = Annotated[int | None, typer.Option(help="Dimensions of a vector (Matryoshka).")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens of a chunk, special tokens included.")]
Overlap = Annotated[int | None, typer.Option(help="Most tokens that a chunk shares with the one before it.")]
NoText = Annotated[bool | None, typer.Option("--no-text/--text", help="Leave the text out of the index.")]
Include = Annotated[
    list[str] | None, typer.Option(help="Only files like this; may be repeated; '' for all.", metavar="GLOB")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="No files or folders like this; may be repeated; '' for none.", metavar="GLOB")
]
Gitignore = Annotated[bool | None, typer.Option("--gitignore/--no-gitignore", help="Honour .gitignore files too.")]
MaxFileSize = Annotated[int | None, typer.Option(help="Largest text file, in MiB; 256 by default.", metavar="MIB")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; the card where there is one.")]
EngineName = Annotated[str, typer.Option(help="auto, sglang or torch.")]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make the index anew under other settings.")]
Reread = Annotated[bool, typer.Option("--reread", help="Read every source again.")]
Rehash = Annotated[bool, typer.Option("--rehash", help="Digest every source, whatever its stat says.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try again all that failed, is partial or was skipped.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 3 for known failures too.")]
MaxGone = Annotated[
    float,
    typer.Option(
        help="Refuse to remove more than this of a root or folder (of ten sources or more).", metavar="PERCENT"
    ),
]
KeepGenerations = Annotated[int, typer.Option(help="Generations to keep.", metavar="N")]
PublishEvery = Annotated[
    float | None,
    typer.Option(help="Until the first whole generation, publish this often; 0: never.", metavar="SECONDS"),
]
CheckpointEvery = Annotated[float, typer.Option(help="Most work that a kill can cost.", metavar="SECONDS")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
LogFile = Annotated[Path | None, typer.Option(help="Write every line there too, with the time.")]


@app.command()
def ingest(
    context: typer.Context,
    source: Sources = None,
    index: flags.IndexFolder = None,
    model: ModelName = None,
    dim: Dim = None,
    max_tokens: MaxTokens = None,
    overlap: Overlap = None,
    no_text: NoText = None,
    include: Include = None,
    exclude: Exclude = None,
    gitignore: Gitignore = None,
    max_file_size: MaxFileSize = None,
    device: Device = None,
    engine: EngineName = "auto",
    gpu_memory: flags.GpuMemory = None,
    batch_tokens: flags.BatchTokens = None,
    quantization: flags.Quantization = None,
    gpus: flags.Gpus = None,
    engine_forward: flags.EngineForward = None,
    rebuild: Rebuild = False,
    reread: Reread = False,
    rehash: Rehash = False,
    retry_failed: RetryFailed = False,
    strict: Strict = False,
    max_gone: MaxGone = 50.0,
    keep_generations: KeepGenerations = 2,
    publish_every: PublishEvery = None,
    checkpoint_every: CheckpointEvery = 60.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    log_file: LogFile = None,
    debug: Debug = False,
) -> None:
    """Bring an index up to date with its sources."""
    from embedcli.ingest import ingest as run
    from embedcli.report import Report

    asked = config.Options(
        index=config.index_folder(index), sources=tuple(source or ()), model=config.model_name(model), dim=dim,
        max_tokens=max_tokens, overlap=overlap, no_text=no_text, device=flags.device_name(device),
        quantization=flags.quantization_name(quantization),
        include=tuple(include or ()), exclude=tuple(exclude or ()), gitignore=gitignore,
        max_file_bytes=None if max_file_size is None else max_file_size * MIB, rebuild=rebuild, reread=reread,
        rehash=rehash, retry_failed=retry_failed, strict=strict, max_gone_percent=max_gone,
        keep_generations=keep_generations, publish_every_s=publish_every, checkpoint_every_s=checkpoint_every,
    )  # fmt: skip
    engine = flags.engine_name(engine)
    card = config.CardFlags(gpu_memory, batch_tokens, flags.card_numbers(gpus), flags.forward_name(engine_forward))
    report = Report(quiet=quiet, log=_open_log(log_file))
    make_tools = tools_maker(context)
    tools = make_tools(engine, report.line, card=card, warn=report.warn, show_log=report.line if debug else None)
    summary = run(asked, tools=tools, report=report)
    for line in _closing_lines(summary):
        report.line(line)
    if as_json:
        print(json.dumps(summary.to_json()))
    raise typer.Exit(summary.exit_code)


def _open_log(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"cannot write `{path}`: {error.strerror}", "name another file with `--log-file`") from error


def _closing_lines(summary: Summary) -> list[str]:
    """`generation 2: 1 changed, 12 unchanged; ...`, and what is amiss, by reason."""
    from embedcli.records import TROUBLED
    from embedcli.report import duration, many

    sources, chunks = summary.sources, summary.chunks
    did = _counts({name: sources[name] for name in ("new", "changed", "moved", "unchanged", "gone", "excluded")})
    rate = f", {summary.tokens_per_s:,.0f} tokens/s" if summary.tokens_per_s else ""
    made = f"{many(chunks['total'], 'chunk')} ({chunks['embedded']:,} embedded, {chunks['reused']:,} reused)"
    first = f"generation {summary.generation}: {did or 'no sources'}; {made}{rate}, {duration(summary.elapsed_s)}"
    amiss = _counts({name: sources[name] for name in TROUBLED})
    news = f"; {summary.failures_new:,} new" if summary.failures_new else ""
    skipped = [f"{sources['skipped']:,} skipped: binary, empty, too large or no file"] if sources["skipped"] else []
    lines = [] if summary.idle else [first]  # that there was nothing to do has been said
    return [*lines, *([f"{amiss}: {_counts(summary.failures)}{news}"] if amiss else []), *skipped]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
