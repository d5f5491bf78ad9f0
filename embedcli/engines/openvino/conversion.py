"""The conversions of models for OpenVINO: made once, in a child process that has torch, and kept in our cache folder.

In: a Model. Out: its Conversion, or Unconvertible with the reason. A conversion is kept under the digests of the
weights and the configuration, the versions of what made it, and what the CPU can do; its files must have the digests
that were noted. It was accepted because its vectors agree with torch's; that a model was refused is kept too. A machine
without torch takes what another one has made, of whatever versions: it may have come here as a copy.
Not here: the making and the comparison (convert.py), running it (engine.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embedcli.config import cache_folder
from embedcli.cores import has_torch
from embedcli.engines.openvino import runtime
from embedcli.errors import EngineError
from embedcli.models.files import file_digest
from embedcli.models.folder import Model
from embedcli.records import digest
from embedcli.report import Say

RECIPE = 1
"""Must be raised with every change of convert.py that changes what it makes or accepts."""

CONVERTERS = ("openvino", "transformers", "torch")
RECORD = "conversion.json"
FILES = ("model.xml", "model.bin")
CONVERT_TIMEOUT_S = 3_600.0
UNFINISHED = "unfinished-"
"""How the names of conversions that are being made begin."""

UNUSED_S = 90 * 86_400.0
"""A new conversion removes those that no run has opened for so long: of other versions, of models that are gone. They
are as large as the weights in float32."""

REFUSED, CRASHED = 3, 1
"""Exit codes of the child by which the model is to blame. Whatever else ends it may be over at the next run."""

LEAST_AGREEMENT = {runtime.FLOAT32: 0.9999, runtime.BFLOAT16: 0.999}
"""The smallest cosine to torch's float32 vectors; in bfloat16 as between any two engines (probe.py)."""


class Unconvertible(EngineError):
    """OpenVINO cannot run this model as torch does, or nothing can be kept here."""

    def __init__(self, message: str, hint: str = "use `--engine torch`") -> None:
        super().__init__(message, hint)


@dataclass(frozen=True)
class Conversion:
    """A converted model on this disk. `agreed`: the precisions in which its vectors are torch's."""

    folder: Path
    vocabulary: int
    pad_id: int
    agreed: tuple[str, ...]

    @property
    def xml(self) -> Path:
        return self.folder / FILES[0]


def run_child(model: Model, into: Path, threads: int) -> subprocess.CompletedProcess[str]:
    """Run the child process that writes the conversion into `into`; what went wrong is the last line of its stderr."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from embedcli.engines.openvino.convert import main; main()"
    order = {"parent": os.getpid(), "folder": str(model.folder), "into": str(into)}
    try:
        return subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=CONVERT_TIMEOUT_S,
            env=_environment(os.environ, threads),
            start_new_session=True,  # a signal to the run's group is the run's: the child ends with it
        )
    except subprocess.TimeoutExpired as error:
        raise Unconvertible(f"the conversion was not finished after {CONVERT_TIMEOUT_S / 60:.0f} min") from error


RunChild = Callable[[Model, Path, int], "subprocess.CompletedProcess[str]"]


def converted(model: Model, *, threads: int, say: Say, run: RunChild = run_child) -> Conversion:
    """The conversion that is kept, else a new one, which takes 10 s of a core and three times the model's memory.

    Raises Unconvertible.
    """
    cache = cache_folder()
    if cache is None:
        raise Unconvertible("there is no folder to keep the conversion in: set `EMBEDCLI_CACHE`")
    if not has_torch():
        return _copied(model, cache)
    folder = cache / "openvino" / f"{_model_key(model, cache)}-{_maker_key()}"
    if (kept := _kept(folder, cache)) is not None:
        return kept
    say(f"converting {model.name} for OpenVINO, once")
    try:
        _convert(folder, lambda made: run(model, made, threads))
    except OSError as error:
        raise Unconvertible(f"the conversion cannot be kept in `{cache}`: {error.strerror}") from error
    if (kept := _kept(folder, cache)) is None:
        raise Unconvertible(f"the conversion in `{folder}` is damaged")
    return kept


def _copied(model: Model, cache: Path) -> Conversion:
    """A conversion of the model that was made elsewhere, or here when torch was installed; the one that was opened last
    counts. Raises Unconvertible."""
    made = sorted((cache / "openvino").glob(f"{_model_key(model, cache)}-*"), key=_opened_ns, reverse=True)
    if (kept := next(filter(None, (_kept(folder, cache) for folder in made)), None)) is not None:
        return kept
    raise Unconvertible(
        f"{model.name} is not converted for OpenVINO, and torch, which converts it, is not installed",
        "install it with `pip install 'embedcli[cpu]'`,"
        f" or copy `{cache / 'openvino'}` from a machine that has converted the model",
    )


def _opened_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:  # another process has removed it
        return 0


def _model_key(model: Model, cache: Path, *, recipe: int = RECIPE) -> str:
    """What is converted, and how."""
    config = file_digest(model.folder / "config.json", cache=cache)
    return digest(recipe, model.weights_digest, model.tokenizer_digest, model.pooling, config)


def _maker_key(version: Callable[[str], str] = version) -> str:
    """What converts it here, and where it was tried whether the vectors are torch's."""
    return digest(*(f"{name} {version(name)}" for name in CONVERTERS), *runtime.capabilities())


def _kept(folder: Path, cache: Path) -> Conversion | None:
    """What is kept there; None, and nothing there, where it is not as it was written. Raises Unconvertible."""
    try:
        record = json.loads((folder / RECORD).read_text())
        with suppress(OSError):  # a cache that is only read
            os.utime(folder)  # opened now: `_remove_old`
        if record["refused"]:
            raise Unconvertible(record["refused"])
        if all(file_digest(folder / name, cache=cache) == record["files"][name] for name in FILES):
            return Conversion(folder, record["vocabulary"], record["pad_id"], tuple(record["agreed"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _convert(folder: Path, run: Callable[[Path], subprocess.CompletedProcess[str]]) -> None:
    """Convert a model into `folder`, which then holds all of it or why not. Raises Unconvertible and OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_old(folder.parent)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as place:
        made = Path(place) / "made"
        made.mkdir()
        ran = run(made)
        if ran.returncode:
            reason = (ran.stderr.strip().splitlines() or [f"the converter ended with {ran.returncode}, no output"])[-1]
            if ran.returncode not in (REFUSED, CRASHED):
                raise Unconvertible(reason)
            for file in made.iterdir():
                file.unlink()
            (made / RECORD).write_text(json.dumps({"refused": reason}))
        with suppress(OSError):  # another process was quicker
            os.rename(made, folder)


def _remove_old(conversions: Path) -> None:
    """Remove what killed runs have left (what is younger may be another run's) and what nobody opens any more."""
    for place in conversions.glob("*"):
        lasts_s = CONVERT_TIMEOUT_S if place.name.startswith(UNFINISHED) else UNUSED_S
        with suppress(OSError):
            if time.time() - place.stat().st_mtime > lasts_s:
                shutil.rmtree(place, ignore_errors=True)


def _environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    return {**environment, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


def write_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note, as the last file of a conversion, what it is and which digests its other files have; all durable."""
    files = {name: file_digest(folder / name, cache=None) for name in FILES}
    (folder / RECORD).write_text(json.dumps({"refused": "", "files": files, **facts}))
    for name in (*FILES, RECORD):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
