"""The one door of the package `openvino` on the fast path: imported without its telemetry, every setting stated.

In: a converted model's `.xml`, a precision, a number of threads. Out: a compiled model, and what the CPU can do.
OpenVINO keeps what it compiled and loads it again without looking at its bytes: we keep the digests, and remove what
does not match. Nothing is lost with that cache but a tenth of a second.
Not here: which conversion (conversion.py), feeding it (engine.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from embedcli.records import digest

FLOAT32, BFLOAT16 = "float32", "bfloat16"
HINTS = {FLOAT32: "f32", BFLOAT16: "bf16"}

KEPT_SHAPES = 64
"""Each shape of a batch costs 0.4 MB for ever, were it not for this limit."""


@cache
def core() -> Any:
    """OpenVINO's Core. Its converter is not imported, which would write below the home folder and start a sender."""
    modules: dict[str, Any] = sys.modules  # None: importing it fails, which openvino allows
    modules.setdefault("openvino_telemetry", None)
    modules.setdefault("openvino.tools.ovc", None)
    import openvino

    return openvino.Core()


def capabilities() -> list[str]:
    """What the CPU computes natively, as OpenVINO announces it: `BF16`, `FP32`, `INT8` ..."""
    return sorted(core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def precisions(announced: Sequence[str] | None = None) -> list[str]:
    """The precisions in which this CPU is quick, the quickest first. OpenVINO accepts bfloat16 everywhere, and emulates
    it where it is not announced."""
    return [BFLOAT16, FLOAT32] if "BF16" in (announced or capabilities()) else [FLOAT32]


def compiled(xml: Path, *, precision: str, threads: int) -> Any:
    """The model, compiled for this CPU. Every setting is stated: by default weights or activations lose precision."""
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # a pinned thread waits for a neighbour, however many cores are free
        "CPU_RUNTIME_CACHE_CAPACITY": KEPT_SHAPES,
    }
    kept = _compiled_folder(xml, precision)
    if kept is not None:
        remove_altered(kept)
        options |= {"CACHE_DIR": str(kept), "CACHE_MODE": "OPTIMIZE_SIZE"}
    made = core().compile_model(str(xml), "CPU", options)
    if kept is not None and not made.get_property("LOADED_FROM_CACHE"):
        note_digests(kept)
    return made


def _compiled_folder(xml: Path, precision: str) -> Path | None:
    """Where this CPU's compilation in this precision is kept, since OpenVINO gives those of all precisions one name;
    None where nothing can be kept."""
    device = core().get_property("CPU", "FULL_DEVICE_NAME")
    folder = xml.parent / "compiled" / digest(device, precision)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None


def remove_altered(folder: Path) -> None:
    """Remove what is not as `note_digests` saw it."""
    try:
        known = json.loads((folder / "digests.json").read_text())
    except (OSError, ValueError):
        known = {}
    with suppress(OSError):  # another process may have removed it
        for file in folder.glob("*.blob"):
            if _digest(file) != known.get(file.name):
                file.unlink(missing_ok=True)


def note_digests(folder: Path) -> None:
    """Note what OpenVINO has written."""
    temporary = folder / f"digests.{os.getpid()}.tmp"
    with suppress(OSError):
        temporary.write_text(json.dumps({file.name: _digest(file) for file in folder.glob("*.blob")}))
        temporary.replace(folder / "digests.json")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
