"""Choose the model, device and engine of a run on this machine, and open that engine.

In: the options, the settings that the index remembers, the flags for a card. Out: a Model, a device, an open Engine.
Where a run cannot start, EngineError or UsageError before anything is written.
Not here: reading the flags (cli), the engines themselves (torch_engine.py, openvino/, sglang/).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from embedcli.config import MINILM, NO_CPU_FLAGS, CardFlags, CpuFlags, Options
from embedcli.cores import has_torch, wait_passively
from embedcli.errors import EngineError, UsageError
from embedcli.models.resolve import MINILM_PACKAGE
from embedcli.report import Say

if TYPE_CHECKING:
    from embedcli.config import IndexSettings
    from embedcli.engines.contract import Engine
    from embedcli.models.folder import Model


def resolve_model(
    asked: Options, memory: IndexSettings | None, *, engine: str, card: CardFlags, cpu: CpuFlags, say: Say
) -> Model:
    """The model that the options name, else the one that the index remembers, else the one that suits this machine.

    Raises EngineError (exit 13) and UsageError (exit 2) where this machine cannot run it as asked.
    """
    from embedcli.engines import nvml

    _check_engine(asked, memory, engine, card)
    _check_cpu(asked, memory, engine, cpu)
    return resolve_for(asked, memory, has_gpu=nvml.has_nvidia_card() and asked.device != "cpu", say=say)


def resolve_for(asked: Options, memory: IndexSettings | None, *, has_gpu: bool, say: Say) -> Model:
    """The same for other machines, with or without cards: whether they can run it they say themselves."""
    from embedcli.models import resolve

    if asked.model is None and memory is not None:
        return resolve.resolve(memory.model, commit=memory.commit, report=say)
    if asked.model is not None:
        commit = memory.commit if memory is not None and memory.model == asked.model else None
        return resolve.resolve(asked.model, commit=commit, report=say)
    name, reason = choose_default(has_gpu=has_gpu)
    say(f"model {name}: {reason}")
    return resolve.resolve(name, report=say)


def device_kind(asked: Options) -> str:
    """The kind of device that a new index is built on: the one asked for, else `cuda` where there is a card."""
    from embedcli.engines import nvml

    return asked.device or ("cuda" if nvml.has_nvidia_card() else "cpu")


def _check_engine(asked: Options, memory: IndexSettings | None, engine: str, card: CardFlags) -> None:
    """Raise EngineError (exit 13) or UsageError (exit 2) where the engine cannot start, before anything is written."""
    from embedcli.engines import nvml

    device = asked.device or (memory.device_kind if memory else device_kind(asked))
    if device == "cuda" and not nvml.has_nvidia_card():
        raise _no_card(asked, memory)
    if engine == "sglang" and device != "cuda":
        raise EngineError("SGLang needs an NVIDIA card", "use `--engine torch`")
    if _is_sglang(engine, device):
        if find_spec("sglang") is None:
            raise EngineError(
                "SGLang is not installed", "install it with `pip install 'embedcli[gpu]'`, or use `--engine torch`"
            )
        return
    if asked.quantization is None and memory is not None and memory.quantization:
        flag = "--engine" if engine == "torch" else "--device"
        raise UsageError(
            f"the index has vectors of {memory.quantization} weights, which only SGLang makes: `{asked.shown_index}`",
            f"leave `{flag}` out, or start another index with `--index`",
        )
    given = [*card.given(), *(["--quantization"] if asked.quantization else [])]
    if given:
        raise UsageError(f"only SGLang has `{given[0]}`, and this run does not use it", f"leave `{given[0]}` out")


def _check_cpu(asked: Options, memory: IndexSettings | None, engine: str, cpu: CpuFlags) -> None:
    """Raise EngineError (exit 13) or UsageError (exit 2) where the CPU is not used as asked."""
    device = asked.device or (memory.device_kind if memory else device_kind(asked))
    if engine == "openvino" and device != "cpu":
        raise EngineError(f"OpenVINO runs on the CPU, and this run uses `{device}`", "add `--device cpu`")
    if engine == "openvino" and find_spec("openvino") is None:
        hint = "install it with `pip install 'embedcli[cpu]'`, or use `--engine torch`"
        raise EngineError("OpenVINO is not installed", hint)
    if engine == "torch" or (engine == "auto" and device != "cuda" and find_spec("openvino") is None):
        _check_torch()
    given = [f"--{name}" for name, value in vars(cpu).items() if value is not None]
    if given and device != "cpu":
        hint = f"leave `{given[0]}` out, or add `--device cpu`"
        raise UsageError(f"`{given[0]}` is for a CPU, and this run uses `{device}`", hint)


def _check_torch() -> None:
    if not has_torch():
        raise EngineError("no engine is installed that can run this", "install it with `pip install 'embedcli[cpu]'`")


def _no_card(asked: Options, memory: IndexSettings | None) -> EngineError:
    from embedcli.engines import nvml

    mend = nvml.DRIVER_HINT
    if memory is not None and memory.quantization:
        return EngineError("there is no usable NVIDIA card, which an index of fp8 vectors needs", mend)
    why = "`--device cuda` asks for one" if asked.device else "this index was built on one"
    return EngineError(f"there is no usable NVIDIA card, and {why}", f"{mend}, or go on slowly with `--device cpu`")


def _is_sglang(engine: str, device: str) -> bool:
    return engine == "sglang" or (engine == "auto" and device == "cuda")


def open_engine(
    model: Model,
    settings: IndexSettings,
    device: str,
    *,
    engine: str,
    card: CardFlags,
    cpu: CpuFlags,
    say: Say,
    warn: Say,
    show_log: Say | None,
) -> Engine:
    """Open the engine of a run. `show_log` gets every line of SGLang's log; without it, errors quote the last ones."""
    if _is_sglang(engine, device):
        from embedcli.engines.sglang import engine as sglang_engine
        from embedcli.engines.sglang.settings import SGLangSettings

        asked = SGLangSettings(
            gpus=card.gpus or (0,), gpu_memory=card.gpu_memory, batch_tokens=card.batch_tokens,
            quantization=settings.quantization, max_tokens=settings.max_tokens, forward=card.engine_forward or "own",
        )  # fmt: skip
        return sglang_engine.open_engine(model, dim=settings.dim, settings=asked, say=say, warn=warn, show_log=show_log)
    if device == "cpu":
        return open_on_cpu(model, dim=settings.dim, engine=engine, cpu=cpu, say=say)
    return _open_torch(model, dim=settings.dim, device=device)


def open_on_cpu(model: Model, *, dim: int, engine: str = "auto", cpu: CpuFlags = NO_CPU_FLAGS, say: Say) -> Engine:
    """OpenVINO where it is installed and runs the model as torch does, else torch, with one line that says why."""
    if engine == "openvino" or (engine == "auto" and find_spec("openvino") is not None):
        from embedcli.engines.openvino.conversion import Unconvertible
        from embedcli.engines.openvino.engine import open_engine as open_openvino

        try:
            return open_openvino(model, dim=dim, say=say, threads=cpu.threads, precision=cpu.precision)
        except Unconvertible as error:
            if engine == "openvino" or not has_torch():
                raise
            say(f"{model.name} runs with torch, as OpenVINO cannot take it: {error}")
    return _open_torch(model, dim=dim, device="cpu", threads=cpu.threads)


def _open_torch(model: Model, *, dim: int, device: str, threads: int | None = None) -> Engine:
    _check_torch()
    wait_passively()  # before torch is loaded
    from embedcli.engines import torch_engine

    return torch_engine.open_engine(model, dim=dim, device=device, threads=threads)


GPU_MODEL = "Qwen/Qwen3-Embedding-4B"
SMALL_MODEL = "Qwen/Qwen3-Embedding-0.6B"


def choose_default(*, has_gpu: bool) -> tuple[str, str]:
    """(the model of a run that names none, why it is this one)"""
    if has_gpu:
        return GPU_MODEL, "an NVIDIA card is here"
    if find_spec(MINILM_PACKAGE) is not None:
        return MINILM, "no NVIDIA card, and the extra minilm is installed"
    return SMALL_MODEL, "no NVIDIA card, and the extra minilm is not installed"
