"""`embedcli config` on the command line: the settings with which `ingest` would run, and where each comes from.

In: the flags of `ingest`. Out: a line for each flag on stdout, with `--json` one object. Nothing is written or run.
Not here: which value counts (values/group.py), the file (values/settings_file.py).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from embedcli.cli.app import print_json
from embedcli.cli.flags import opened_index
from embedcli.cli.ingest import MIB
from embedcli.cli.ingest import ingest as ingest_command
from embedcli.cli.values.group import NOT_SET_BY_FILE, options, origins
from embedcli.config import index_folder

if TYPE_CHECKING:
    from embedcli.index.manifest import Generation

WIDTH = 20
VALUE_WIDTH = 24
OF_THE_COMMAND = {"json", "debug"}
IN_ROOTS = {"include", "exclude", "gitignore", "default_excludes", "follow_links"}


def config(context: typer.Context, **given: Any) -> None:
    """Show the settings of `ingest` as they would count now, and where each comes from.

    A flag counts before its variable, that before the file, that before what the index remembers.
    """
    index = index_folder(given["index"])
    current = _current(index)
    found = {"index": {"value": str(index), "from": _source(context, "index")}}
    for key, option in options(context.command):
        if key not in NOT_SET_BY_FILE | OF_THE_COMMAND | {"index"}:
            value, source = given[option.name], _source(context, key)
            if source == "default" and current is not None and (known := _remembered(current, option.name)) is not None:
                value, source = known, "index"
            found[key] = {"value": str(value) if isinstance(value, Path) else value, "from": source}
    if given["as_json"]:
        file = origins(context).file
        print_json({"exit_code": 0, "file": str(file) if file else None, "settings": found})
        return
    for key, entry in found.items():
        print(f"{key:<{WIDTH}} {_text(entry['value']):<{VALUE_WIDTH}} {entry['from']}")


_parameters = inspect.signature(ingest_command, eval_str=True).parameters
config.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [parameter for name, parameter in _parameters.items() if name != "source"]
)
config.__annotations__ = {name: parameter.annotation for name, parameter in _parameters.items()}


def _source(context: typer.Context, key: str) -> str:
    if key in (known := origins(context).of):
        return known[key]
    option = dict(options(context.command))[key]
    source = context.get_parameter_source(option.name)
    return "flag" if source is not None and source.name == "COMMANDLINE" else "default"


def _current(index: Path) -> Generation | None:
    opened = opened_index(None, str(index))
    opened.check()
    return opened.current() if opened.is_there else None


def _remembered(current: Generation, name: str) -> Any:
    """What the index remembers for a flag; None where it remembers nothing. Filters are remembered by root."""
    settings = current.settings
    if name in IN_ROOTS:
        values = {getattr(root, name) for root in current.roots}
        return values.pop() if len(values) == 1 else " / ".join(sorted(map(_text, values))) or None
    if name == "max_file_size":
        return settings.max_file_bytes // MIB
    return settings.device_kind if name == "device" else getattr(settings, name, None)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
