"""What the NVIDIA driver says of the cards, without CUDA. The one door of pynvml, NVIDIA's bindings of NVML.

In: the numbers of the cards asked for, among those that CUDA_VISIBLE_DEVICES leaves visible. Out: one Card each, or
EngineError with what to mend. NVML leaves no CUDA context behind, which would cost memory and break forked children.
Not here: what runs on a card (sglang/settings.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedcli.errors import EngineError

CPU_HINT = "go on slowly with `--device cpu`"
DRIVER_HINT = "mend the driver (`nvidia-smi` shows what is wrong)"


@dataclass(frozen=True, slots=True)
class Card:
    """One card as it is now. `capability` 8.6 is (8, 6). `cuda` is the newest version that the driver runs, (13, 0) for
    13.0."""

    index: int
    uuid: str
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str
    cuda: tuple[int, int]


def read_cards(wanted: Sequence[int] | None = None, *, environment: Mapping[str, str] = os.environ) -> list[Card]:
    """The cards of these numbers, counted among the visible ones; all visible ones for None. Raises EngineError."""
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
    """Raise EngineError where the installed torch cannot run on this driver: its CUDA must be of torch's major version
    or newer."""
    if torch_cuda is None:
        raise EngineError(
            "the installed torch was built without CUDA", "`pip install --force-reinstall 'embedcli[gpu]'`"
        )
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
    from pynvml import NVMLError, NVMLError_LibraryNotFound

    try:
        with _driver() as driver:
            cards = [_read_card(driver, index) for index in range(driver.nvmlDeviceGetCount())]
    except NVMLError_LibraryNotFound as error:
        raise EngineError("there is no NVIDIA driver here", f"install it, or {CPU_HINT}") from error
    except NVMLError as error:
        raise EngineError(f"the NVIDIA driver does not answer: `{error}`", f"{DRIVER_HINT}, or {CPU_HINT}") from error
    if not cards:
        raise EngineError("the NVIDIA driver shows no card", f"{DRIVER_HINT}, or {CPU_HINT}")
    return cards


@contextmanager
def _driver() -> Iterator[Any]:
    """NVML's functions, for as long as the context lasts. Raises pynvml.NVMLError.

    pynvml is imported here and not at the top: that takes 20 ms, and most commands ask no driver.
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _read_card(driver: Any, index: int) -> Card:
    handle = driver.nvmlDeviceGetHandleByIndex(index)
    memory = driver.nvmlDeviceGetMemoryInfo(handle)
    cuda = driver.nvmlSystemGetCudaDriverVersion_v2()
    return Card(
        index=index,
        uuid=driver.nvmlDeviceGetUUID(handle),
        name=driver.nvmlDeviceGetName(handle),
        capability=driver.nvmlDeviceGetCudaComputeCapability(handle),
        total_bytes=memory.total,
        free_bytes=memory.free,
        driver=driver.nvmlSystemGetDriverVersion(),
        cuda=(cuda // 1000, cuda % 1000 // 10),
    )


def has_nvidia_card(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the driver shows a card that we may use.

    NVML answers where files in /proc and /dev mislead (containers, WSL), and unlike cuInit it leaves no CUDA state
    behind that a forked child would inherit.
    """
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in {"", "-1"}:
        return False
    from pynvml import NVMLError

    try:
        with _driver() as driver:
            return bool(driver.nvmlDeviceGetCount())
    except NVMLError:
        return False
