"""`embedcli serve` on the command line.

In: flags. Out: a server, which says on stderr where it listens and when it is ready; exit 0 when a signal ended it.
Not here: what is served (verbs/serve.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedcli import config
from embedcli.cli import flags
from embedcli.cli.app import Debug, tools_maker
from embedcli.config import MIB, index_folder, mirrored_url, model_name
from embedcli.errors import UsageError
from embedcli.paths import exists
from embedcli.report import say, say_warning

if TYPE_CHECKING:
    from embedcli.run.tools import Tools

Host = Annotated[str, typer.Option(help="The address to listen at; any but this machine's own needs an API key.")]
Port = Annotated[int, typer.Option(help="The port; 0: a free one.", min=0, max=65535)]
ApiKey = Annotated[
    str | None, typer.Option(help="The key that clients must send; better as the variable than typed.", metavar="KEY")
]
Files = Annotated[
    bool, typer.Option("--files", help="Let the page open the documents of its passages, where they are here.")
]
Mcp = Annotated[
    bool, typer.Option("--mcp", help="Serve the index over stdin and stdout, as tools of a language model (MCP).")
]
MaxBody = Annotated[int, typer.Option(help="The most MiB of one request.", metavar="MIB")]
MaxTexts = Annotated[int, typer.Option(help="The most texts of one request.", metavar="N")]
MaxQueue = Annotated[int, typer.Option(help="The most tokens that may wait for the engine.", metavar="TOKENS")]


def serve(
    context: typer.Context,
    index: flags.IndexArgument = None,
    index_option: flags.IndexFolder = None,
    model: Annotated[str | None, typer.Option(help="Serve this model, without an index.")] = None,
    dim: Annotated[int | None, typer.Option(help="The number of dimensions, as for `ingest`.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The most tokens of a text; default: as many as the model takes.", metavar="N")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    files: Files = False,
    mcp: Mcp = False,
    max_body: MaxBody = 16,
    max_texts: MaxTexts = 2048,
    max_queue: MaxQueue = 1 << 20,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps, as for `ingest`.")] = None,
    engine: Annotated[str, typer.Option(help="auto, sglang, openvino or torch, as for `ingest`.")] = "auto",
    gpu_memory: flags.GpuMemory = None,
    batch_tokens: flags.BatchTokens = None,
    gpus: flags.Gpus = None,
    engine_forward: flags.EngineForward = None,
    threads: flags.Threads = None,
    precision: flags.Precision = None,
    debug: Debug = False,
) -> None:
    """Serve vectors over HTTP, as OpenAI's API does, and the searches of an INDEX, with a page at `/`."""
    folder = _index_folder(index, index_option, {"--model": model, "--dim": dim, "--max-tokens": max_tokens})
    if lacking := next((name for name in ("starlette", "uvicorn", "mcp") if find_spec(name) is None), None):
        raise UsageError(f"`{lacking}` is not installed", "install it with `pip install 'embedcli[serve]'`")
    from embedcli.serving.limits import Limits
    from embedcli.verbs import serve as verb
    from embedcli.verbs.embed_job import Asked

    asked = Asked(
        index=folder, model=None if folder else model_name(model), dim=dim, max_tokens=max_tokens,
        device=flags.device_name(device),
    )  # fmt: skip
    place = verb.Place(host, port, api_key, files)
    limits = Limits(body_bytes=max_body * MIB, texts=max_texts, queue_tokens=max_queue)
    card = config.CardFlags(gpu_memory, batch_tokens, flags.card_numbers(gpus), flags.forward_name(engine_forward))
    cpu = config.CpuFlags(threads, flags.precision_name(precision))
    tools = tools_maker(context)(flags.engine_name(engine), say, card=card, cpu=cpu, show_log=say if debug else None)
    if mcp:
        _serve_mcp(folder, tools)
    else:
        verb.serve(asked, place, limits, tools=tools, say=say)


def _serve_mcp(folder: Path | None, tools: Tools) -> None:
    from embedcli.index.mirror.place import open_index
    from embedcli.verbs.serve_mcp import serve_mcp

    if folder is None:
        raise UsageError("`--mcp` serves an index, and none is named", "name it: `embedcli serve INDEX --mcp`")
    serve_mcp(open_index(folder, warn=say_warning), tools=tools, say=say)


def _index_folder(argument: str | None, option: str | None, others: Mapping[str, object]) -> Path | None:
    """The index to serve; None for a model alone. Without either, the index where `search` would look for it."""
    given = [flag for flag, value in others.items() if value is not None]
    if argument is None and option is None:
        folder = index_folder(None)
        is_there = mirrored_url(folder) is not None or exists(folder / "current")
        return folder if not given and is_there else None
    if given:
        raise UsageError(f"`{given[0]}` cannot be combined with an index, which has its own", f"leave `{given[0]}` out")
    return flags.index_of(argument, option)
