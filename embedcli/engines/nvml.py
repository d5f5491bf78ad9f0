"""What the NVIDIA driver says of the cards, without CUDA.

In: which cards are meant, counted as CUDA_VISIBLE_DEVICES lets them be seen. Out: one Card each, or EngineError
with what to mend. NVML leaves no CUDA context behind, which would cost memory and break forked children.
Not here: what is run on a card (sglang/settings.py).
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedcli.errors import EngineError

CPU_HINT = "go on slowly with `--device cpu`"
NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class Card:
    """One card as it is now. `capability` 8.6 is (8, 6); `cuda` 13.0 is (13, 0), the newest that the driver runs."""

    index: int
    uuid: str
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str
    cuda: tuple[int, int]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def read_cards(wanted: Sequence[int] | None = None, *, environment: Mapping[str, str] = os.environ) -> list[Card]:
    """The cards wanted, by their place among the visible ones; all visible ones for None."""
    setting = environment.get("CUDA_VISIBLE_DEVICES")
    visible = visible_cards(_all_cards(), setting)
    if not visible and setting and setting.startswith("MIG-"):
        raise EngineError(f"`{setting}` is a slice of a card (MIG), and SGLang gets whole ones", "use `--engine torch`")
    if not visible:
        raise EngineError("CUDA_VISIBLE_DEVICES hides every NVIDIA card", f"unset it, or {CPU_HINT}")
    absent = [number for number in wanted or () if not 0 <= number < len(visible)]
    if absent:
        raise EngineError(f"there are {len(visible)} NVIDIA cards, none is `{absent[0]}`", "name others with `--gpus`")
    return [visible[number] for number in (range(len(visible)) if wanted is None else wanted)]


def visible_cards(cards: Sequence[Card], setting: str | None) -> list[Card]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, in its order; like CUDA it stops at the first unknown one."""
    if setting is None:
        return list(cards)
    visible: list[Card] = []
    for name in (part.strip() for part in setting.split(",")):
        found = [card for card in cards if name and (name == str(card.index) or card.uuid.startswith(name))]
        if not found:
            break
        visible.append(found[0])
    return visible


def check_driver(card: Card, torch_cuda: tuple[int, int] | None) -> None:
    """Raise EngineError where the installed torch cannot run on this driver: it must know torch's major CUDA."""
    if torch_cuda is None:
        raise EngineError("the installed torch is one without CUDA", "`pip install --force-reinstall 'embedcli[gpu]'`")
    if card.cuda[0] < torch_cuda[0]:
        newest, needed = ".".join(map(str, card.cuda)), ".".join(map(str, torch_cuda))
        raise EngineError(
            f"the NVIDIA driver {card.driver} runs CUDA {newest}, torch needs `{needed}`",
            f"install a newer driver, or {CPU_HINT}",
        )


def installed_torch_cuda() -> tuple[int, int] | None:
    """The CUDA version that torch was built with, None for one without."""
    spec = find_spec("torch")
    return None if spec is None or spec.origin is None else torch_cuda(Path(spec.origin).parent / "version.py")


def torch_cuda(version_file: Path) -> tuple[int, int] | None:
    """Read from the file: importing torch takes seconds."""
    try:
        stated = re.search(r"^cuda\b[^=]*= *['\"](\d+)\.(\d+)", version_file.read_text(encoding="utf-8"), re.M)
    except OSError:
        return None
    return (int(stated[1]), int(stated[2])) if stated else None


def _all_cards() -> list[Card]:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise EngineError("there is no NVIDIA driver here", f"install it, or {CPU_HINT}") from error
    _check(nvml.nvmlInit_v2(), "nvmlInit")
    try:
        count = ctypes.c_uint(0)
        _check(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)), "nvmlDeviceGetCount")
        if not count.value:
            raise EngineError("the NVIDIA driver shows no card", f"mend it (`nvidia-smi` tells), or {CPU_HINT}")
        return [_read_card(nvml, index) for index in range(count.value)]
    finally:
        nvml.nvmlShutdown()


def _read_card(nvml: Any, index: int) -> Card:
    handle, memory = ctypes.c_void_p(), _Memory()
    major, minor, cuda = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, uuid, driver = (ctypes.create_string_buffer(NAME_BYTES) for _ in range(3))
    _check(nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)), "nvmlDeviceGetHandleByIndex")
    _check(nvml.nvmlDeviceGetName(handle, name, NAME_BYTES), "nvmlDeviceGetName")
    _check(nvml.nvmlDeviceGetUUID(handle, uuid, NAME_BYTES), "nvmlDeviceGetUUID")
    _check(nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)), "nvmlDeviceGetMemoryInfo")
    capability = nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    _check(capability, "nvmlDeviceGetCudaComputeCapability")
    _check(nvml.nvmlSystemGetDriverVersion(driver, NAME_BYTES), "nvmlSystemGetDriverVersion")
    _check(nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(cuda)), "nvmlSystemGetCudaDriverVersion")
    return Card(
        index=index,
        uuid=uuid.value.decode(),
        name=name.value.decode(),
        capability=(major.value, minor.value),
        total_bytes=memory.total,
        free_bytes=memory.free,
        driver=driver.value.decode(),
        cuda=(cuda.value // 1000, cuda.value % 1000 // 10),
    )


def _check(status: int, call: str) -> None:
    if status != 0:
        raise EngineError(
            f"the NVIDIA driver does not answer: `{call}` gives {status}",
            f"mend it (`nvidia-smi` tells), or {CPU_HINT}",
        )


def has_nvidia_card(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the driver shows a card that we may use.

    Asked of NVML, which answers where files in /proc and /dev mislead (containers, WSL) and, unlike cuInit,
    leaves no CUDA state behind that a forked child would inherit.
    """
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        return False
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    if nvml.nvmlInit_v2() != 0:
        return False
    count = ctypes.c_uint(0)
    answered = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    nvml.nvmlShutdown()
    return answered and count.value > 0
