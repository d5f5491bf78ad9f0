"""Check what a run needs from this machine; each check gives a line that is ok, or names the command that repairs it.

In: the folder of the index, which may not exist yet, and the model asked for. Out: Lines. Nothing is changed: files
made to test the filesystem are removed again, and no model is fetched.
Not here: the filesystem of the index (filesystem.py), starting the engine (start_engine.py), printing (cli/doctor.py).
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from embedcli.config import DEFAULT_MAX_TOKENS
from embedcli.cores import engine_threads, has_torch
from embedcli.engines import choose, nvml
from embedcli.engines.nvml import Card, check_driver, installed_torch_cuda, read_cards
from embedcli.engines.sglang.engine import host_path, kernel_caches
from embedcli.engines.sglang.settings import SGLangSettings, plan, read_shape
from embedcli.errors import EngineError, ModelUnavailable
from embedcli.models import resolve
from embedcli.models.files import read_json
from embedcli.paths import exists
from embedcli.report import many
from embedcli.verbs.doctor.check import ENGINE, GIB, Line
from embedcli.verbs.doctor.filesystem import storage

if TYPE_CHECKING:
    from embedcli.config import IndexSettings
    from embedcli.models.folder import Model


def examine(
    index: Path, *, model: str | None, settings: IndexSettings | None, environment: Mapping[str, str] = os.environ
) -> Iterator[Line]:
    """Run all checks, those of the machine first. `settings` are those of the index, where there is one; `model`
    overrides the model of the index."""
    yield _python()
    device = settings.device_kind if settings else None
    on_card = device == "cuda" or (device is None and nvml.has_nvidia_card(environment))
    card, line = _card(environment, needed=on_card)
    yield line
    if on_card:
        yield _sglang()
        yield from _compilers({**environment, "PATH": host_path(environment)})
        yield from _caches(environment)
    else:
        yield _openvino()
    found, line = _model(model, settings, has_gpu=on_card)
    yield line
    if card is not None and found is not None and on_card:
        yield _room(card, found, settings)
    yield from storage(index)


def _python() -> Line:
    return Line("python", f"{sys.version.split()[0]}, embedcli in {Path(__file__).parent}")


# ---- the card and what runs on it


def _card(environment: Mapping[str, str], *, needed: bool) -> tuple[Card | None, Line]:
    """The first card, where a run can use one, and its line."""
    try:
        cards = read_cards(environment=environment)
        check_driver(cards[0], installed_torch_cuda())
    except EngineError as error:
        if needed:
            return None, Line("card", str(error), False, error.hint, ENGINE)
        return None, Line("card", f"no usable card ({error}): runs use the CPU")
    memory = [f"{card.name}, {card.free_bytes / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB free" for card in cards]
    cuda = ".".join(map(str, cards[0].cuda))
    return cards[0], Line("card", f"{'; '.join(memory)}; driver {cards[0].driver}, CUDA {cuda}")


def _sglang() -> Line:
    mend = "`pip install 'embedcli[gpu]'`, or use `--engine torch`"
    try:
        return Line("sglang", version("sglang"))
    except PackageNotFoundError:
        return Line("sglang", "not installed", False, mend, ENGINE)


def _openvino() -> Line:
    """What runs use on the CPU."""
    try:
        found = f"{version('openvino')}, {many(engine_threads(), 'thread')}"
        without = "" if has_torch() else "; without torch it runs what was converted on another machine"
        return Line("openvino", f"{found}{without}")
    except PackageNotFoundError:
        if not has_torch():
            return Line("openvino", "not installed, nor is torch", False, "`pip install 'embedcli[cpu]'`", ENGINE)
        return Line("openvino", "not installed: torch is slower and starts later; `pip install 'embedcli[cpu]'`")


def _compilers(environment: Mapping[str, str]) -> Iterator[Line]:
    """The compilers that the first start on a machine needs: Triton builds a C module, SGLang builds kernels."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    toolkit = "install the CUDA toolkit, or set `export CUDA_HOME=` to its folder"
    yield _program("compiler", [environment.get("CC", "cc"), "gcc", "clang"], environment, mend="`apt install gcc`")
    yield _program("c++", [environment.get("CXX", "c++")], environment, mend="`apt install g++`")
    yield _program("ninja", ["ninja"], environment, mend="`pip install ninja`")
    yield _program("nvcc", _places_of_nvcc(environment), environment, mend=toolkit)
    if not exists(headers):
        mend = f"`apt install python3.{sys.version_info.minor}-dev`"
        yield Line("headers", f"Python's header files are not installed: `{headers}` is missing", False, mend, ENGINE)


def _places_of_nvcc(environment: Mapping[str, str]) -> list[str]:
    """The places in which SGLang looks for nvcc."""
    home = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
    return [f"{home}/bin/nvcc"] if home else ["nvcc", "/usr/local/cuda/bin/nvcc"]


def _program(what: str, names: Sequence[str], environment: Mapping[str, str], *, mend: str) -> Line:
    for name in names:
        if found := shutil.which(name, path=environment["PATH"]):
            return Line(what, found)
    return Line(what, f"`{names[0]}` was not found", False, mend, ENGINE)


def _caches(environment: Mapping[str, str]) -> Iterator[Line]:
    folders = [Path(path) for path in kernel_caches(environment).values()]
    if not folders:
        yield Line("kernel cache", "HOME is not set", False, "`export EMBEDCLI_CACHE=/var/cache/embedcli`", ENGINE)
    bad = [line for line in map(_writable, folders) if not line.well]
    parents = ", ".join(dict.fromkeys(str(folder.parent) for folder in folders))
    yield from bad or ([Line("kernel cache", f"{parents} can be written to")] if folders else [])


def _writable(folder: Path) -> Line:
    """Whether kernels can be stored in `folder`; for a missing folder its nearest existing parent is tested."""
    existing = next(parent for parent in (folder, *folder.parents) if exists(parent))
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=existing):
        return Line("kernel cache", f"{folder} can be written to")
    mend = "set `export EMBEDCLI_CACHE=` to a folder that you can write to"
    return Line("kernel cache", f"`{folder}` cannot be written to", False, mend, ENGINE)


# ---- the model


def _model(name: str | None, settings: IndexSettings | None, *, has_gpu: bool) -> tuple[Model | None, Line]:
    commit = settings.commit if settings and not name else None
    chosen = name or (settings.model if settings else choose.choose_default(has_gpu=has_gpu)[0])
    try:
        found = resolve.resolve(chosen, report=lambda _: None, commit=commit, download=False)
    except ModelUnavailable as error:
        return None, Line("model", str(error), False, error.hint, ENGINE)
    return found, Line("model", f"{chosen} in {found.folder}")


def _room(card: Card, model: Model, settings: IndexSettings | None) -> Line:
    """Whether the model fits into the free memory of the card, by the plan that a run would use."""
    asked = SGLangSettings(
        max_tokens=settings.max_tokens if settings else DEFAULT_MAX_TOKENS,
        quantization=settings.quantization if settings else None,
    )
    try:
        chosen = plan(
            card, read_shape(read_json(model.folder / "config.json")), max_tokens=model.max_tokens, asked=asked
        )
    except EngineError as error:
        return Line("room", str(error), False, error.hint, ENGINE)
    needs = f"the model needs {chosen.need_bytes / GIB:.1f} GiB of the card"
    return Line("room", f"{needs}, with batches of {chosen.batch_tokens:,} tokens")
