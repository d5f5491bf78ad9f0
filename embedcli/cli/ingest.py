"""`embedcli ingest` on the command line.

In: flags. Out: progress and closing lines on stderr, with `--json` one object on stdout, an exit code.
Not here: the run (embedcli/ingest.py), flags that other commands take too (flags.py), flags for cron (nightly.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli import config, filelist
from embedcli.cli import flags, nightly
from embedcli.cli.app import AsJson, Debug, print_json, tools_maker
from embedcli.cli.texts import metrics
from embedcli.cli.values.workers import WorkersFlag, with_workers
from embedcli.errors import EmbedcliError, RunStopped, Stopped, UsageError
from embedcli.report import Report

if TYPE_CHECKING:
    from embedcli.report import Summary
    from embedcli.run.tools import Tools

MIB = 1 << 20
NAMES_SHOWN = 3

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SOURCE]...",
        help="Files, folders, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER; default: the roots that the index remembers.",
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(help="Read the files that stand in this list, a name a line; `-`: on stdin.", metavar="FILE"),
]
Nul = Annotated[bool, typer.Option("-0", help="The names in the list end in NUL, as `find -print0` writes them.")]
Records = Annotated[
    list[str] | None,
    typer.Option(
        help="Read these files as records (JSON lines, CSV, TSV, Parquet, Arrow); `-`: those on stdin; repeatable;"
        " '' forgets the patterns and fields before.",
        metavar="GLOB",
    ),
]
Name = Annotated[str | None, typer.Option(help="The name of the records that come on stdin.")]
Whole = Annotated[
    bool, typer.Option("--whole/--append", help="Whether records that stdin does not hold any more are gone.")
]
TextField = Annotated[list[str] | None, typer.Option(help="A field of a record that is its text; repeatable: text.")]
IdField = Annotated[str | None, typer.Option(help="The field that is a record's id: id.")]
TitleField = Annotated[str | None, typer.Option(help="The field that is a record's title: title.")]
MetaField = Annotated[list[str] | None, typer.Option(help="A field to keep as meta; repeatable: all others.")]
LabelFields = Annotated[bool, typer.Option("--label-fields", help="Lead each text field by its name.")]
ModelName = Annotated[
    str | None,
    typer.Option(help="The model: a folder, a hub id such as Qwen/Qwen3-Embedding-0.6B, or `minilm`."),
]
Dim = Annotated[
    int | None, typer.Option(help="The number of dimensions of a vector (Matryoshka); default: 1024 at most.")
]
MaxTokens = Annotated[
    int | None, typer.Option(help="The most tokens in a chunk, special tokens included; default: 512 at most.")
]
Overlap = Annotated[int | None, typer.Option(help="The most tokens that a chunk repeats of the chunk before it.")]
NoText = Annotated[bool | None, typer.Option("--no-text/--text", help="Do not store the text of the chunks.")]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Read only files that match; can be repeated; '' reads all files again.", metavar="GLOB"),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Leave out files and folders that match; can be repeated; '' leaves out none.", metavar="GLOB"),
]
Gitignore = Annotated[
    bool | None, typer.Option("--gitignore/--no-gitignore", help="Leave out what .gitignore files name.")
]
DefaultExcludes = Annotated[
    bool | None,
    typer.Option(
        "--default-excludes/--no-default-excludes",
        help="Leave out office lock files (~$*), node_modules and __pycache__; a new root does.",
    ),
]
FollowLinks = Annotated[
    bool | None,
    typer.Option(
        "--follow-links/--no-follow-links", help="Read links to files outside every root; a new root does not."
    ),
]
MaxFileSize = Annotated[
    int | None, typer.Option(help="The largest text file to read, in MiB; default: 256.", metavar="MIB")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: a GPU if there is one.")]
EngineName = Annotated[str, typer.Option(help="auto, sglang, openvino or torch.")]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Rebuild the index with other settings.")]
Reread = Annotated[bool, typer.Option("--reread", help="Read every source again.")]
Rehash = Annotated[
    bool, typer.Option("--rehash", help="Compute the digest of every source, even if its size and times are the same.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Read sources again that failed, are partial or were skipped.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 for known failures too.")]
MaxGone = Annotated[
    list[str] | None,
    typer.Option(
        help="Keep the sources of a folder of ten or more of which more than this share is gone; default: 50.",
        metavar="[FOLDER=]PERCENT",
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        help="Who may read a new index, as of chmod; default: 700, only you, for it holds the text of its sources.",
        metavar="OCTAL",
    ),
]
KeepGenerations = Annotated[int, typer.Option(help="How many generations to keep.", metavar="N")]
PublishEvery = Annotated[
    float | None,
    typer.Option(help="How often to publish until the first generation is complete; 0: never.", metavar="SECONDS"),
]
CheckpointEvery = Annotated[
    float, typer.Option(help="How often to write a checkpoint; a kill costs at most this much work.", metavar="SECONDS")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors, and sources that failed in a new way.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Name the ten largest files, also those that are not new.")
]


def ingest(
    context: typer.Context,
    source: Sources = None,
    files_from: FilesFrom = None,
    nul: Nul = False,
    records: Records = None,
    name: Name = None,
    whole: Whole = False,
    text_field: TextField = None,
    id_field: IdField = None,
    title_field: TitleField = None,
    meta_field: MetaField = None,
    label_fields: LabelFields = False,
    index: flags.IndexFolder = None,
    model: ModelName = None,
    dim: Dim = None,
    max_tokens: MaxTokens = None,
    overlap: Overlap = None,
    no_text: NoText = None,
    include: Include = None,
    exclude: Exclude = None,
    gitignore: Gitignore = None,
    default_excludes: DefaultExcludes = None,
    follow_links: FollowLinks = None,
    max_file_size: MaxFileSize = None,
    device: Device = None,
    engine: EngineName = "auto",
    gpu_memory: flags.GpuMemory = None,
    batch_tokens: flags.BatchTokens = None,
    quantization: flags.Quantization = None,
    gpus: flags.Gpus = None,
    engine_forward: flags.EngineForward = None,
    threads: flags.Threads = None,
    precision: flags.Precision = None,
    rebuild: Rebuild = False,
    reread: Reread = False,
    rehash: Rehash = False,
    retry_failed: RetryFailed = False,
    strict: Strict = False,
    max_gone: MaxGone = None,
    mode: Mode = None,
    keep_generations: KeepGenerations = 2,
    publish_every: PublishEvery = None,
    checkpoint_every: CheckpointEvery = 60.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: nightly.LogFile = None,
    metrics_file: nightly.MetricsFile = None,
    deadline: nightly.Deadline = None,
    time_limit: nightly.TimeLimit = None,
    require_complete: nightly.RequireComplete = False,
    nice: nightly.Nice = None,
    workers: WorkersFlag = None,
    dry_run: nightly.DryRun = False,
    debug: Debug = False,
) -> None:
    """Bring an index up to date with its sources.

    Examples, and details of sources, records, runs every night, buckets, cards and several machines follow the flags.
    """
    asked = config.Options(
        index=config.index_folder(index), sources=tuple(source or ()), listed=_list_of(files_from, nul),
        stream=flags.stream_of(records, name, whole=whole), model=config.model_name(model), dim=dim,
        records=flags.record_rules(records, text_field, id_field, title_field, meta_field, label=label_fields),
        max_tokens=max_tokens, overlap=overlap, no_text=no_text, device=flags.device_name(device),
        quantization=flags.quantization_name(quantization), include=tuple(include or ()),
        exclude=tuple(exclude or ()), gitignore=gitignore, default_excludes=default_excludes,
        follow_links=follow_links, mode=flags.mode_bits(mode), keep_generations=keep_generations,
        max_file_bytes=None if max_file_size is None else max_file_size * MIB, rebuild=rebuild, reread=reread,
        rehash=rehash, retry_failed=retry_failed, strict=strict, max_gone_percent=flags.max_gone(max_gone),
        max_gone_of=flags.max_gone_of(max_gone), require_complete=require_complete,
        publish_every_s=publish_every, checkpoint_every_s=checkpoint_every,
    )  # fmt: skip
    card = config.CardFlags(gpu_memory, batch_tokens, flags.card_numbers(gpus), flags.forward_name(engine_forward))
    cpu = config.CpuFlags(threads, flags.precision_name(precision))
    time_left = nightly.seconds_left(deadline, time_limit)
    nightly.stand_back(nice)
    figures_file = None if dry_run else metrics_file
    with nightly.opened_log(log_file) as log, metrics.metrics_file(figures_file, asked.index) as ended:
        report = Report(quiet=quiet, verbose=verbose, log=log)
        tools = tools_maker(context)(
            flags.engine_name(engine), report.line, card=card, cpu=cpu, warn=report.warn,
            show_log=report.line if debug else None, seconds_left=time_left,
        )  # fmt: skip
        tools = with_workers(tools, workers, engine=engine, card=card, cpu=cpu, say=report.line)
        with _noted(report):
            if dry_run:
                return _look_only(asked, tools, report, as_json=as_json)
            ended.append(_run(asked, tools, report))
    _tell(ended[-1], as_json=as_json)


def _tell(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(summary.to_json())
    raise typer.Exit(summary.exit_code)


def _look_only(asked: config.Options, tools: Tools, report: Report, *, as_json: bool) -> None:
    from embedcli.verbs.dry_run import dry_run

    forecast = dry_run(asked, tools=tools, report=report)
    for line in nightly.forecast_lines(forecast):
        report.line(line)
    if as_json:
        print_json(forecast.to_json())


@contextmanager
def _noted(report: Report) -> Iterator[None]:
    """Write the error that ends the run into the log file too; `main` prints it."""
    try:
        yield
    except EmbedcliError as error:
        report.note(f"error: {error}")
        raise


def _run(asked: config.Options, tools: Tools, report: Report) -> Summary:
    from embedcli.ingest import ingest as run

    try:
        summary = run(asked, tools=tools, report=report)
    except Stopped as error:
        raise RunStopped(*error.args) from None
    for line in _closing_lines(summary):
        report.line(line)
    if summary.news:
        report.news(_news_line(summary))
    return summary


def _closing_lines(summary: Summary) -> list[str]:
    """`generation 2: 1 changed, 12 unchanged; ...`, and the sources that are not indexed, by reason."""
    from embedcli.records import TROUBLED
    from embedcli.report import duration, many, skipped_line

    sources, chunks = summary.sources, summary.chunks
    did = _counts({name: sources[name] for name in ("new", "changed", "moved", "unchanged", "gone", "excluded")})
    rate = f", {summary.tokens_per_s:,.0f} tokens/s" if summary.tokens_per_s else ""
    made = f"{many(chunks['total'], 'chunk')} ({chunks['embedded']:,} embedded, {chunks['reused']:,} reused)"
    first = f"generation {summary.generation}: {did or 'no sources'}; {made}{rate}, {duration(summary.elapsed_s)}"
    troubled = _counts({name: sources[name] for name in TROUBLED})
    failures = [f"{troubled}: {_counts(summary.failures)}"] if troubled else []
    skipped = [line] if (line := skipped_line(summary.skipped)) else []
    if summary.replaced["sources"]:
        sources_with = many(summary.replaced["sources"], "source")
        characters = many(summary.replaced["characters"], "character")
        skipped.append(f"{sources_with} with bytes that are not text: {characters} replaced by U+FFFD")
    lines = (
        [] if summary.idle or summary.generation is None else [first]
    )  # the run has already said that there was nothing to do
    return [*lines, *failures, *skipped]


def _news_line(summary: Summary) -> str:
    """`2 new failures: 1 no_text scan-7.pdf, 1 password offer.pdf`: by reason, with the first paths of each."""
    from embedcli.report import many, one_line

    by_reason: dict[str, list[str]] = {}
    for source in summary.news:
        by_reason.setdefault(source["reason"], []).append(one_line(source["uri"].rpartition("/")[2]))
    cut = summary.failures_new > len(summary.news)
    parts = []
    for reason, names in by_reason.items():
        count = f"{len(names)}{' or more' if cut else ''}"
        rest = ", ..." if len(names) > NAMES_SHOWN else ""
        parts.append(f"{count} {reason} {', '.join(names[:NAMES_SHOWN])}{rest}")
    return f"{many(summary.failures_new, 'new failure')}: {', '.join(parts)}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _list_of(name: str | None, nul: bool) -> filelist.FileList | None:
    if name is None and nul:
        raise UsageError("`-0` is for the names of `--files-from`", "add `--files-from -`, or leave `-0` out")
    return None if name is None else filelist.read_list(name, nul=nul)
