"""What a run needs from this machine -> a line each: well, or the command that mends it.

In: the folder of the index, which may not exist yet, and the model asked for. Out: Lines. Nothing is changed for good:
what is tried on the filesystem is removed again, no model is fetched, and the engine is not started here.
Not here: starting it (machine_cli.py), printing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from embedcli import lock, models
from embedcli.card import check_driver, installed_torch_cuda, read_cards
from embedcli.disk import Disk
from embedcli.engine_sglang import kernel_caches
from embedcli.errors import EmbedcliError, EngineError, ModelUnavailable, StorageError

GIB = 1 << 30
LEAST_FREE_BYTES = 2 * GIB
ENGINE, STORAGE = EngineError.exit_code, StorageError.exit_code


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at. Not `well`: `mend` is what to type, `code` the exit code of the run that it would end;
    code 0 where a run goes on without it."""

    what: str
    found: str
    well: bool = True
    mend: str = ""
    code: int = 0


def examine(
    index: Path,
    *,
    model: str | None,
    commit: str | None,
    device: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Line]:
    """Everything, the machine first. `model`, `commit` and `device` are those of the index, where there is one."""
    yield _python()
    on_card = device == "cuda" or (device is None and models.has_nvidia_card(environment))
    yield _card(environment, needed=device == "cuda")
    if on_card:
        yield _sglang()
        yield _compiler()
        yield from _caches(environment)
    yield _model(model, commit, has_gpu=on_card)
    yield from _storage(index)


def _python() -> Line:
    return Line("python", f"{sys.version.split()[0]}, embedcli in {Path(__file__).parent}")


# ---- the card and what runs on it


def _card(environment: Mapping[str, str], *, needed: bool) -> Line:
    try:
        cards = read_cards(environment=environment)
        check_driver(cards[0], installed_torch_cuda())
    except EngineError as error:
        if needed:
            return Line("card", str(error), False, error.hint, ENGINE)
        return Line("card", f"none to use ({error}): runs are on the CPU")
    told = [f"{card.name}, {card.free_bytes / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB free" for card in cards]
    return Line("card", f"{'; '.join(told)}; driver {cards[0].driver}, CUDA {'.'.join(map(str, cards[0].cuda))}")


def _sglang() -> Line:
    mend = "`pip install 'embedcli[gpu]'`, or use `--engine torch`"
    try:
        return Line("sglang", version("sglang"))
    except PackageNotFoundError:
        return Line("sglang", "not installed", False, mend, ENGINE)


def _compiler() -> Line:
    """Triton builds a small C module at its first start on a machine."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        return Line("compiler", "no C compiler on the PATH", False, "`apt install gcc`", ENGINE)
    if not headers.exists():
        mend = f"`apt install python3.{sys.version_info.minor}-dev`"
        return Line("compiler", f"{compiler}, but not `{headers}`", False, mend, ENGINE)
    return Line("compiler", f"{compiler}, and Python's headers")


def _caches(environment: Mapping[str, str]) -> Iterator[Line]:
    folders = {name: Path(path) for name, path in kernel_caches(environment).items()}
    if not folders:
        yield Line("kernel cache", "no HOME", False, "`export EMBEDCLI_CACHE=/var/cache/embedcli`", ENGINE)
    for folder in dict.fromkeys(path.parent for path in folders.values()):
        yield _writable("kernel cache", folder, mend="`export EMBEDCLI_CACHE=` with a folder that can be written")


def _model(name: str | None, commit: str | None, *, has_gpu: bool) -> Line:
    chosen = name or models.choose_default(has_gpu=has_gpu)[0]
    try:
        found = models.resolve(chosen, report=lambda _: None, commit=commit, download=False)
    except ModelUnavailable as error:
        return Line("model", str(error), False, error.hint, ENGINE)
    return Line("model", f"{chosen} in {found.folder}")


# ---- the index's filesystem


def _storage(index: Path) -> Iterator[Line]:
    parent = next(folder for folder in (index, *index.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        yield Line("index", f"`{parent}` cannot be written", False, f"`chown {os.getuid()} {parent}`", STORAGE)
        return
    free = shutil.disk_usage(parent).free
    enough = free >= LEAST_FREE_BYTES
    mend = "" if enough else "free some space, or put the index on another disk with `--index`"
    yield Line("index", f"{index}, {free / GIB:.1f} GiB free", enough, mend, 0 if enough else STORAGE)
    if lock.on_network(parent):
        yield Line("filesystem", "a network filesystem: a run that died elsewhere holds the index for 10 minutes")
    with tempfile.TemporaryDirectory(prefix=".embedcli-doctor-", dir=parent) as folder:
        for what, attempt in _ATTEMPTS.items():
            yield _tried(what, Path(folder), attempt)


def _tried(what: str, folder: Path, attempt: Callable[[Path], None]) -> Line:
    """Hard links alone can be done without: shards are then copied."""
    mend = "put the index on a local disk (ext4, xfs) with `--index`"
    try:
        attempt(folder)
    except (OSError, EmbedcliError) as error:
        if what == "hard links":
            return Line(what, "none: shards are copied from generation to generation")
        return Line(what, f"does not work here: {error}", False, mend, STORAGE)
    return Line(what, "work")


def _flock(folder: Path) -> None:
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _hard_link(folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    os.link(folder / "file", folder / "again")


def _symlink_swap(folder: Path) -> None:
    disk = Disk()
    for name in ("first", "second"):
        disk.point(folder / "current", name)
    if os.readlink(folder / "current") != "second":
        raise OSError("the link was not replaced")


def _fsync(folder: Path) -> None:
    disk = Disk()
    disk.write(folder / "durable", lambda sink: sink.write(b"x"))
    disk.fsync_folder(folder)


_ATTEMPTS: dict[str, Callable[[Path], None]] = {
    "locks": _flock,
    "hard links": _hard_link,
    "link swaps": _symlink_swap,
    "durable writes": _fsync,
}


def _writable(what: str, folder: Path, *, mend: str) -> Line:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=existing):
        return Line(what, f"{folder} can be written")
    return Line(what, f"`{folder}` cannot be written", False, mend, ENGINE)
