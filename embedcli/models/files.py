"""The files of a model folder: whether they are whole, their JSON, and their digests, which are cached.

In: a folder, or a file in it. Out: what is missing or torn, JSON as a dict, sha256 digests. A digest is read
from `digests.json` in our cache folder as long as path, size, mtime and inode are those of the time it was
computed; a cache that cannot be read or written costs time, never an error.
Not here: what the files mean (folder.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from embedcli.errors import ModelUnavailable
from embedcli.paths import exists, is_file

OTHER_MODEL = "choose another model: `--model minilm`, a hub id or a folder saved by sentence-transformers"

Json = dict[str, Any]


def missing_part(folder: Path) -> str | None:
    """What a broken download left out, in words; None when the folder is whole."""
    for name in ("config.json", "modules.json", "tokenizer.json"):
        if not is_file(folder / name):
            return f"it has no {name}"
    for unfinished in folder.glob("*.incomplete"):
        if not exists(unfinished.with_suffix("")):
            return f"{unfinished.name} was never finished"
    files = weight_files(folder)
    if not files:
        return "it has no model.safetensors"
    return next((problem for file in files if (problem := _weights_problem(file))), None)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, in name order; a shard that the index names may be missing."""
    if exists(folder / "model.safetensors"):
        return [folder / "model.safetensors"]
    index = read_json(folder / "model.safetensors.index.json", optional=True)
    return [folder / str(shard) for shard in sorted(set(index.get("weight_map", {}).values()))]


def _weights_problem(file: Path) -> str | None:
    """A safetensors file states in its header where its last tensor ends: that is its size, or it is torn."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            header_size = int.from_bytes(stream.read(8), "little")
            if 8 + header_size > size:
                return f"{file.name} ends within its header"
            header = json.loads(stream.read(header_size))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except FileNotFoundError:
        return f"it has no {file.name}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{file.name} is not a safetensors file"
    expected = 8 + header_size + max(ends, default=0)
    return None if size == expected else f"{file.name} has {size:,} of {expected:,} bytes"


def read_json(file: Path, *, optional: bool = False) -> Json:
    """The object in the file; an optional file that is absent gives an empty one."""
    if optional and not exists(file):
        return {}
    content = load_json(file)
    if not isinstance(content, dict):
        raise ModelUnavailable(f"the model's file is not a JSON object: `{file}`", OTHER_MODEL)
    return content


def load_json(file: Path) -> object:
    """The JSON in the file, of any type. Raises ModelUnavailable if it cannot be read or parsed."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the model's file cannot be read: `{file}` ({error})", OTHER_MODEL) from error


def weights_digest(folder: Path, cache: Path | None) -> str:
    """sha256 of the weights: the digest of a single file, or the digest of several files' digests in name order."""
    digests = [file_digest(file, cache=cache) for file in weight_files(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def file_digest(file: Path, *, cache: Path | None) -> str:
    """sha256 of the file's bytes as hex."""
    stat = file.stat()
    key = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    known = _read(cache).get(str(file.absolute()))
    if isinstance(known, list) and known[:-1] == key:
        return str(known[-1])
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    _remember(cache, str(file.absolute()), [*key, digest])
    return digest


def _read(cache: Path | None) -> dict[str, object]:
    if cache is None:
        return {}
    try:
        known = json.loads((cache / "digests.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(cache: Path | None, path: str, entry: list[object]) -> None:
    """Write an entry to the cache. Two runs at once may lose each other's entry, which is then computed again."""
    if cache is None:
        return
    entries = {name: old for name, old in _read(cache).items() if os.path.exists(name)} | {path: entry}
    temporary = cache / f"digests.{os.getpid()}.tmp"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries), encoding="utf-8")
        os.replace(temporary, cache / "digests.json")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
