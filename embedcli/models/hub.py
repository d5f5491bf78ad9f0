"""A hub id -> a folder in the hub cache, downloaded when it is not there or not whole.

In: `owner/name` and maybe a commit. Out: the snapshot's folder, or one of our errors for each of the library's.
The small files are downloaded first, so once the weights are in place everything is; finished files are kept, a
download that broke off is continued. HF_HOME, HF_ENDPOINT and proxies are left to the library; an empty variable
counts as not set.
Not here: what a folder must hold to be a model (resolve.py).
"""

from __future__ import annotations

import errno
import glob
import importlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from embedcli.errors import EmbedcliError, ModelUnavailable, StorageError
from embedcli.paths import exists, is_folder
from embedcli.report import Say

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo


REPORT_EVERY_S = 10.0
SPARE = 1.05
"""Free space required for a download: its size and 5 %."""

UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR})
MEANT_UNSET = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_ENDPOINT", "HF_TOKEN_PATH")
"""Variables that a shell leaves empty for "none"."""

ELSEWHERE = "or choose `--model minilm` or `--model /path/to/folder`"


def is_hub_id(name: str) -> bool:
    """Whether the name has the form of a hub id, `owner/name`."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None


def cached(name: str, *, commit: str | None) -> Path | None:
    """The folder of a commit in the hub cache (None: of `main` as last downloaded), without touching the network.

    It may be half-downloaded. None if there is none.
    """
    repository = _cache() / f"models--{name.replace('/', '--')}"
    try:
        commit = commit or (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = repository / "snapshots" / commit
    return folder if is_folder(folder) else None


def fetch(name: str, *, commit: str | None, report: Say, free_bytes: Callable[[Path], int]) -> Path:
    """Download what is missing of the model's files and give its snapshot's folder."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    try:
        disable_progress_bars()
        return _fetch(name, commit, report, free_bytes)
    except foreign_errors() as error:
        raise translate(error, name, commit) from error


def foreign_errors() -> tuple[type[Exception], ...]:
    """The exceptions that the library and its HTTP clients are known to raise, also for answers of other servers than
    the hub (a proxy's login page)."""
    from huggingface_hub import errors

    # httpx up to version 1 of the library, httpx2 since
    http = importlib.import_module(errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    answers = (OSError, ValueError, RuntimeError, KeyError, TypeError, AssertionError)
    return (*answers, http.HTTPError, http.InvalidURL, errors.XetDownloadError)


def _fetch(name: str, commit: str | None, report: Say, free_bytes: Callable[[Path], int]) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    info = HfApi().model_info(name, revision=commit, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    sizes = _wanted(name, info)
    repository = _cache() / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / str(info.sha)
    _drop_torn(snapshot, sizes)
    needed = sum(size for file, size in sizes.items() if not exists(snapshot / file))
    check_space(name, needed_bytes=needed, free_bytes=free_bytes(_existing(repository)))
    report(f"fetching {name} ({megabytes(needed)}) into {repository}")
    small = [glob.escape(file) for file in sizes if not file.endswith(".safetensors")]
    weights = [glob.escape(file) for file in sizes if file.endswith(".safetensors")]
    with progress(repository / "blobs", needed_bytes=needed, report=report):
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=small))
        snapshot_download(name, revision=folder.name, allow_patterns=weights)
    return folder


def translate(error: Exception, name: str, commit: str | None = None) -> EmbedcliError:
    """The hub library's error as one of ours, with the hint that helps."""
    from huggingface_hub import errors

    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        hint = f"accept its terms on its page, set `HF_TOKEN`, then `embedcli pull {name}`"
        return ModelUnavailable(f"the owner of the model asks for an agreement first: `{name}`", hint)
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        return ModelUnavailable(f"the hub has no such model or commit: `{name}`", _check_spelling())
    if isinstance(error, errors.HFValidationError):
        return ModelUnavailable(f"this is not the name of a model: `{name}`", _check_spelling())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageError(f"the disk is full: `{_cache()}`", "free some space or set `HF_HOME` to a larger disk")
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return ModelUnavailable(
            f"the hub cache cannot be written: `{_cache()}` ({line})",
            "set `HF_HOME` to a folder that can be written",
        )
    at = f" at commit `{commit}`" if commit else ""
    return ModelUnavailable(f"the hub does not give `{name}`{at}: {line}", offline_hint(name, commit))


def offline_hint(name: str, commit: str | None = None) -> str:
    """What to do about a model that is not here: download it where there is a network, or choose another model. With
    `commit` no other model is offered, since the index was built with that commit."""
    fetch = f"`embedcli pull {name}{'@' * bool(commit)}{commit or ''}` where there is a network"
    return f"{fetch} (the cache may be copied)" + ("" if commit else f", {ELSEWHERE}")


def megabytes(size_bytes: int) -> str:
    """A size as people read it."""
    return f"{size_bytes / 1e6:,.1f} MB"


def _check_spelling() -> str:
    return f"check the spelling and, for a private model, `HF_TOKEN`, {ELSEWHERE}"


def _cache() -> Path:
    for name in MEANT_UNSET:  # the library reads them once, when it is imported, and takes `` for the working folder
        if os.environ.get(name) == "":
            del os.environ[name]
    try:
        from huggingface_hub import constants
    except ValueError as error:  # it parses HF_ENDPOINT when it is imported
        raise ModelUnavailable(f"`HF_ENDPOINT` is not an address: {error}", "unset `HF_ENDPOINT`") from error
    return Path(constants.HF_HUB_CACHE).expanduser().absolute()


def _wanted(name: str, info: ModelInfo) -> dict[str, int]:
    """Name -> size of the files to download. Raises ModelUnavailable if the repository lacks what a model needs."""
    present = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted = {file: size for file, size in present.items() if _is_needed(PurePosixPath(file))}
    if "modules.json" not in wanted:
        raise ModelUnavailable(f"`{name}` is not an embedding model: it has no modules.json", ELSEWHERE[3:])
    if not any(file.endswith(".safetensors") for file in wanted):
        raise ModelUnavailable(f"`{name}` has no safetensors weights; pickled ones are refused", ELSEWHERE[3:])
    return wanted


def _is_needed(file: PurePosixPath) -> bool:
    if len(file.parts) == 1:
        return file.suffix in {".json", ".txt"} or file.match("model*.safetensors")
    module = re.fullmatch(r"\d+_\w+", file.parts[0])
    return len(file.parts) == 2 and module is not None and file.suffix == ".json"


def _drop_torn(snapshot: Path, sizes: dict[str, int]) -> None:
    """Delete files whose size is not the one that the hub states: the library would take them for whole."""
    for file, size in sizes.items():
        pointer = snapshot / file
        if exists(pointer) and pointer.stat().st_size != size:
            pointer.resolve().unlink()
            pointer.unlink(missing_ok=True)


def check_space(name: str, *, needed_bytes: int, free_bytes: int) -> None:
    """StorageError with both figures where the disk has less than the download and 5 %."""
    if needed_bytes * SPARE > free_bytes:
        raise StorageError(
            f"`{name}` needs {megabytes(int(needed_bytes * SPARE))}, "
            f"the disk has {megabytes(free_bytes)} left: `{_cache()}`",
            "free some space or set `HF_HOME` to a larger disk",
        )


def free_bytes(folder: Path) -> int:
    """The free space of the disk under the folder."""
    return shutil.disk_usage(folder).free


def _existing(folder: Path) -> Path:
    return next(parent for parent in [folder, *folder.parents] if exists(parent))


@contextmanager
def progress(blobs: Path, *, needed_bytes: int, report: Say, every_s: float = REPORT_EVERY_S) -> Iterator[None]:
    """Report every few seconds how much has arrived. Measured on the disk, so it works for every transport."""
    before, done = _bytes_in(blobs), threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            report(f"fetched {megabytes(_bytes_in(blobs) - before)} of {megabytes(needed_bytes)}")

    watcher = threading.Thread(target=watch, name="fetch-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.glob("*"):
        try:
            total += file.stat().st_size
        except OSError:  # renamed in this moment
            continue
    return total
