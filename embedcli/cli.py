"""Flags -> settings -> one call -> text on stderr, data on stdout, an exit code.

In: argv. Out: the process's status, from the table in the README. Heavy imports wait until a command needs them.
Not here: any work.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedcli import __version__, flags, keeper_cli, machine_cli
from embedcli.errors import EmbedcliError, EngineError, Stopped, StorageError, UsageError
from embedcli.flags import NO_CARD_FLAGS, CardFlags
from embedcli.report import say, silence

if TYPE_CHECKING:
    from embedcli.config import Asked, IndexSettings
    from embedcli.models import Model
    from embedcli.report import Summary

MIB = 1 << 20
_DEBUG = "--debug"
PRINTED_IN_VAIN = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
    help="A folder of PDFs and text in, a Parquet index of unit vectors out, and tomorrow only what changed.",
)  # fmt: skip


@app.callback()
def _common() -> None:
    """Options of all commands live on the commands."""


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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
LogFile = Annotated[Path | None, typer.Option(help="Write every line there too, with the time.")]
Debug = Annotated[bool, typer.Option(_DEBUG, help="Show tracebacks.")]


@app.command()
def ingest(
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
    from embedcli import config
    from embedcli.ingest import ingest as run
    from embedcli.report import Report

    asked = config.Asked(
        index=config.index_folder(index), sources=tuple(source or ()), model=config.model_name(model), dim=dim,
        max_tokens=max_tokens, overlap=overlap, no_text=no_text, device=flags.device_name(device),
        quantization=flags.quantization_name(quantization),
        include=tuple(include or ()), exclude=tuple(exclude or ()), gitignore=gitignore,
        max_file_bytes=None if max_file_size is None else max_file_size * MIB, rebuild=rebuild, reread=reread,
        rehash=rehash, retry_failed=retry_failed, strict=strict, max_gone_percent=max_gone,
        keep_generations=keep_generations, publish_every_s=publish_every, checkpoint_every_s=checkpoint_every,
    )  # fmt: skip
    engine = flags.engine_name(engine)
    card = flags.CardFlags(gpu_memory, batch_tokens, flags.card_numbers(gpus))
    report = Report(quiet=quiet, log=_open_log(log_file))
    summary = run(asked, tools=_tools(engine, report.line, card, warn=report.warn), report=report)
    for line in _closing_lines(summary):
        report.line(line)
    if as_json:
        print(json.dumps(summary.to_json()))
    raise typer.Exit(summary.exit_code)


@app.command()
def pull(
    model: Annotated[
        str | None, typer.Argument(help="A hub id, ID@COMMIT for an older commit; this machine's default otherwise.")
    ] = None,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show tracebacks.")] = False,
) -> None:
    """Fetch a model, so that a later run needs no network."""
    from embedcli import models

    name = model or models.choose_default(has_gpu=models.has_nvidia_card())[0]
    found = models.pull(name, report=say)
    print(f"folder {found.folder}")
    print(f"commit {found.commit or '-'}")
    print(f"sha256 {found.weights_digest}")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _open_log(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"cannot write `{path}`: {error.strerror}", "name another file with `--log-file`") from error


# ---- what a run is made with


def _tools(engine: str, say: Any, card: CardFlags = NO_CARD_FLAGS, *, warn: Any = None) -> Any:
    """The real seams: the model of this machine, its engine, and the signals of this process."""
    from embedcli.ingest import Tools

    return Tools(
        resolve=lambda asked, memory: _resolve(asked, memory, engine, say, card),
        device_kind=_device_kind,
        open_engine=lambda model, settings, device: _open_engine(
            model, settings, device, engine=engine, card=card, say=say, warn=warn or say
        ),
        stop_signal=_listen(),
    )


def _resolve(asked: Asked, memory: IndexSettings | None, engine: str, say: Any, card: CardFlags) -> Model:
    from embedcli import models

    _check_engine(asked, memory, engine, card)
    if asked.model is None and memory is not None:
        return models.resolve(memory.model, commit=memory.commit, report=say)
    if asked.model is not None:
        commit = memory.commit if memory is not None and memory.model == asked.model else None
        return models.resolve(asked.model, commit=commit, report=say)
    has_gpu = models.has_nvidia_card() and asked.device != "cpu"
    name, reason = models.choose_default(has_gpu=has_gpu)
    say(f"model {name}: {reason}")
    return models.resolve(name, report=say)


def _device_kind(asked: Asked) -> str:
    from embedcli import models

    return asked.device or ("cuda" if models.has_nvidia_card() else "cpu")


def _check_engine(asked: Asked, memory: IndexSettings | None, engine: str, card: CardFlags) -> None:
    """Refuse before anything is written what cannot start. Raises EngineError (exit 13), UsageError (exit 2)."""
    from importlib.util import find_spec

    from embedcli import models

    device = asked.device or (memory.device_kind if memory else _device_kind(asked))
    if device == "cuda" and not models.has_nvidia_card():
        raise _no_card(asked, memory)
    if engine == "sglang" and device != "cuda":
        raise EngineError("SGLang needs an NVIDIA card", "use `--engine torch`")
    if _is_sglang(engine, device):
        if find_spec("sglang") is None:
            raise EngineError("SGLang is not installed", "`pip install 'embedcli[gpu]'`, or use `--engine torch`")
        return
    if asked.quantization is None and memory is not None and memory.quantization:
        flag = "--engine" if engine == "torch" else "--device"
        raise UsageError(
            f"the index holds vectors of {memory.quantization} weights, which only SGLang makes: `{asked.index}`",
            f"leave `{flag}` out, or start another index with `--index`",
        )
    given = [*card.given(), *(["--quantization"] if asked.quantization else [])]
    if given:
        raise UsageError(f"only SGLang knows `{given[0]}`, and this run is on torch", f"leave `{given[0]}` out")


def _no_card(asked: Asked, memory: IndexSettings | None) -> EngineError:
    mend = "mend the driver (`nvidia-smi` tells)"
    if memory is not None and memory.quantization:
        return EngineError("there is no usable NVIDIA card, which an index of fp8 vectors needs", mend)
    why = "`--device cuda` asks for one" if asked.device else "this index was built on one"
    return EngineError(f"there is no usable NVIDIA card, and {why}", f"{mend}, or go on slowly with `--device cpu`")


def _is_sglang(engine: str, device: str) -> bool:
    return engine == "sglang" or (engine == "auto" and device == "cuda")


def _open_engine(
    model: Model, settings: IndexSettings, device: str, *, engine: str, card: CardFlags, say: Any, warn: Any
) -> Any:
    if _is_sglang(engine, device):
        from embedcli import engine_sglang
        from embedcli.sglang_settings import SGLangSettings

        asked = SGLangSettings(
            gpus=card.gpus or (0,), gpu_memory=card.gpu_memory, batch_tokens=card.batch_tokens,
            quantization=settings.quantization, max_tokens=settings.max_tokens,
        )  # fmt: skip
        show_log = say if _DEBUG in sys.argv else None
        return engine_sglang.open_engine(model, dim=settings.dim, settings=asked, say=say, warn=warn, show_log=show_log)
    from embedcli import engine_torch

    return engine_torch.open_engine(model, dim=settings.dim, device=device)


def _listen() -> Any:
    """SIGINT and SIGTERM end the run: at once as long as nothing is under way, then at the next poll of what is
    returned (the loop's), and a second one leaves without a word."""
    asked: list[int] = []
    polled = False

    def heard(number: int, _frame: Any) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        if not polled:
            raise Stopped(number)

    def poll() -> int | None:
        nonlocal polled
        polled = True
        return asked[0] if asked else None

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, heard)
    return poll


keeper_cli.register(app, _tools)
machine_cli.register(app, lambda index, model: _start_engine(index, model), _tools)


def _start_engine(index: Path, model: str | None) -> str:
    """Start the engine of a run on this index, embed the probe set; with an index, in agreement with it."""
    from embedcli import config, judging
    from embedcli.disk import Disk
    from embedcli.generations import Index
    from embedcli.ingest import Known, settle
    from embedcli.tokens import load_tokenizer

    asked = config.Asked(index=index, model=model)
    opened = Index(index, disk=Disk())
    current = opened.current() if opened.current_number() is not None else None
    tools = _tools("auto", say)
    chosen = tools.resolve(asked, current.settings if current else None)
    known = Known(
        current, (), current.settings if current else None, current.fingerprints.model if current else "", (), False
    )
    settings, prints = settle(asked, known, chosen, tools.device_kind(asked))
    reference = judging.known_reference(opened, current, (), model_fingerprint=prints.model, dim=settings.dim)
    engine = tools.open_engine(chosen, settings, settings.device_kind)
    try:
        encode = load_tokenizer(chosen.folder, prompt=chosen.prompt).row_of
        judging.judge(engine, reference, encode=encode, max_tokens=settings.max_tokens, model=settings.model)
    finally:
        engine.close()
    agrees = "as the index has it" if reference is not None else "each text alone as in a batch"
    return f"{settings.model} on {settings.device_kind} embeds the probe set, {agrees}"


def _closing_lines(summary: Summary) -> list[str]:
    """`generation 2: 1 changed, 12 unchanged; ...`, and what is amiss, by reason."""
    from embedcli.closing import TROUBLED
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


# ---- errors


def main() -> None:
    """The program. Every EmbedcliError becomes its message, its hint and its exit code; here and nowhere else."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file opened would take its place, and be written into
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no bug
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where it can be told that it does not work
    except EmbedcliError as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:  # before anything was begun
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        silence(sys.stdout)  # whoever read our output has left; nothing to add
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the one place where a bug is told as a bug
        if isinstance(error, OSError) and error.errno in PRINTED_IN_VAIN:  # the index's own are StorageErrors
            say(f"error: what was to be printed cannot be written: {error.strerror}\n\nhint: all else is done")
            silence(sys.stdout)
            sys.exit(StorageError.exit_code)
        traceback.print_exc()
        say("error: this is a bug in embedcli\n\nhint: the last checkpoint stands; run again, report the lines above")
        sys.exit(1)


def _fail(error: EmbedcliError) -> int:
    if _DEBUG in sys.argv:
        traceback.print_exception(error)
    say(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""))
    if "--json" in sys.argv:
        print(json.dumps({"exit_code": error.exit_code, "error": str(error), "hint": error.hint}))
    return error.exit_code
