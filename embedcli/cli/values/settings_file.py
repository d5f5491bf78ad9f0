"""`embedcli.toml`: values for flags that were not given on the command line.

In: the path of the file, the flags of all commands. Out: a value for each flag, as it would be typed; UsageError
(exit 2) for a file that cannot be read, for a key that is no flag and for a value of another kind.
Not here: which value of a flag counts (group.py), printing the settings (cli/config.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any

from embedcli.errors import UsageError
from embedcli.vault.buckets import has_scheme

NAME = "embedcli.toml"
STDIN = "-"
MAX_GONE = "max-gone"
"""Its values may begin with a path: `drafts=100`."""
HINT = "each line is `flag = value`, such as `dim = 256` or `exclude = ['*.log', 'old/']`"


@dataclass(frozen=True)
class Flag:
    """What the file has to know of a flag. `is_path`: a relative value is relative to the folder of the file."""

    key: str
    is_switch: bool = False
    is_list: bool = False
    is_path: bool = False


def find(given: str | None, index: Path) -> Path | None:
    """The file of `--config`, else the one beside the index; None where there is none. Raises UsageError."""
    if given is None:
        beside = index.parent / NAME
        return beside if os.path.exists(beside) else None
    if not given:
        raise UsageError("`--config` is empty: is a shell variable not set?", f"name a file such as `{NAME}`")
    return Path(os.path.abspath(given))


def read(file: Path, flags: Mapping[str, Flag]) -> dict[str, Any]:
    """The values in the file by their keys. Raises UsageError."""
    import tomllib

    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read `{file}`: {error.strerror}", "name another file with `--config`") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"`{file}` is not TOML: {error}", HINT) from error
    for key in data:
        if key not in flags:
            raise _unknown(key, file, flags)
    return {key: _checked(flags[key], value, file) for key, value in data.items()}


def _unknown(key: str, file: Path, flags: Mapping[str, Flag]) -> UsageError:
    import difflib

    near = difflib.get_close_matches(key.replace("_", "-"), flags, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else "keys are the long names of flags: see `embedcli ingest --help`"
    return UsageError(f"`{key}` in `{file}` is not a flag", hint)


def _checked(flag: Flag, value: Any, file: Path) -> Any:
    """The value as the command line would give it: switches as bool, all else as text."""
    if flag.is_switch != isinstance(value, bool):
        kind = "true or false" if flag.is_switch else "no true or false"
        raise UsageError(f"`{flag.key}` in `{file}` must be {kind}, not `{value}`", HINT)
    if flag.is_switch:
        return value
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not flag.is_list or any(isinstance(one, dict | list) for one in values):
        raise UsageError(f"`{flag.key}` in `{file}` takes one value, not `{value}`", HINT)
    typed = (f"{one:%H:%M}" if isinstance(one, time) else str(one) for one in values)
    texts = [_from_folder(flag, text, file.parent) for text in typed]
    return texts if flag.is_list else texts[0]


def _from_folder(flag: Flag, text: str, folder: Path) -> str:
    """A relative path is relative to the folder of the file; a model is a path only where there is such a folder."""
    if flag.key == MAX_GONE and "=" in text:
        named, _, percent = text.rpartition("=")
        return f"{_place(named, folder)}={percent}"
    is_path = flag.is_path or (flag.key == "model" and os.path.isdir(_place(text, folder)))
    return _place(text, folder) if is_path else text


def _place(path: str, folder: Path) -> str:
    """A URL, stdin and nothing at all stay what they are."""
    return path if path in ("", STDIN) or has_scheme(path) else os.path.join(folder, os.path.expanduser(path))
