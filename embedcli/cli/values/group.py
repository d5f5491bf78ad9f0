"""The program as a group of commands whose flags have values from the environment and from a file too.

In: the commands as Typer makes them of their functions. Out: each option with a variable `EMBEDCLI_...`, `--config` for
every command, and the values of `embedcli.toml` in place of defaults. A flag that was given counts before its
variable, the variable before the file, the file before what the index remembers.
Not here: reading the file (settings_file.py); a new flag needs nothing here, as all is taken from the declarations.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from embedcli.cli.commands import LISTED, Commands
from embedcli.cli.output import output
from embedcli.cli.values import settings_file
from embedcli.cli.values.settings_file import Flag
from embedcli.errors import Mismatch, UsageError

PREFIX = "EMBEDCLI_"
INDEX = f"{PREFIX}INDEX"
NOT_SET_BY_FILE = {"help", "version", "config"}
PATHS = {"FILE", "FOLDER", "INDEX"}
"""What help calls a value that is a path, or that may be one."""
AMBIGUOUS = {"format", "mode", "text-field"}
"""Flags that mean something else in each command: other than for `ingest`, their keys begin with the command's name."""

_ORIGINS = "embedcli.origins"
_FILE = "embedcli.file"
_AS_JSON = "embedcli.as_json"
_TYPED_WRONG: Any = typer.BadParameter.__base__
"""What Typer raises for a flag that does not exist, lacks its value or has another kind of it."""


@dataclass(frozen=True)
class Origins:
    """Where values of flags come from: the file, if there is one, and a phrase for each flag that was not typed."""

    file: Path | None
    of: Mapping[str, str]


def origins(context: typer.Context) -> Origins:
    """Where the values of the flags of the present command come from."""
    found: Origins = context.meta[_ORIGINS]
    return found


def options(command: Any) -> Iterator[tuple[str, Any]]:
    """The options of a command, not its arguments, by their keys: their long names, but for AMBIGUOUS."""
    for option in command.params:
        name = max(option.opts, key=len)
        if name.startswith("--"):
            is_own = name[2:] in AMBIGUOUS and command.name not in ("ingest", "config")
            yield f"{command.name}-{name[2:]}" if is_own else name[2:], option


class Group(TyperGroup):
    """The commands, each with a variable for each option, and with `--config`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._config = dict(options(self))["config"]
        self.params = [param for param in self.params if param is not self._config]
        self.commands = Commands(self._prepare)  # type: ignore[assignment]  # nobody adds to them

    def _prepare(self, command: Any) -> None:
        for key, option in options(command):
            if key != "index":  # an INDEX that is typed as an argument counts before the variable: see flags.py
                option.envvar, option.show_envvar = f"{PREFIX}{key.upper().replace('-', '_')}", True
                if option.multiple:
                    option.split_envvar_value = partial(_values_in, option.envvar)
        command.params.append(self._config)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names: the one of Typer loads the commands."""
        return list(LISTED)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with a line of help each, without loading them."""
        width = formatter.width - 6 - max(map(len, LISTED))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, TyperCommand(name, help=line).get_short_help_str(width)) for name, (_, line) in LISTED.items()]
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and let the values of the file stand in for its defaults."""
        name, command, rest = super().resolve_command(ctx, args)
        ctx.meta[_AS_JSON] = command is not None and "json" in dict(options(command)) and "--json" in rest
        if name is not None and not ctx.resilient_parsing:
            self._use_file(ctx, name, command, rest)
        return name, command, rest

    def _use_file(self, ctx: Any, name: str, command: Any, args: list[str]) -> None:
        from embedcli.config import index_folder

        ctx.meta[_ORIGINS] = Origins(None, {})
        first = command.make_context(name, list(args), parent=ctx, resilient_parsing=True)
        if {"-h", "--help"} & set(args):
            return
        index = next((first.params[key] for key in ("index", "index_option") if first.params.get(key)), None)
        file = settings_file.find(ctx.meta.get(_FILE), index_folder(index))
        values = settings_file.read(file, flags_of(self.commands.values())) if file else {}
        if index or os.environ.get(INDEX):
            values.pop("index", None)
        by_name = {option.name: values[key] for key, option in options(command) if key in values}
        ctx.default_map = {name: by_name}
        ctx.meta[_ORIGINS] = Origins(file, dict(_origins(command, first, by_name, file)))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error about a flag that nobody typed says where its value comes from, and with `--json`
        what was typed wrong is an object on stdout too."""
        try:
            return super().invoke(ctx)
        except _TYPED_WRONG as error:
            if where := _where(ctx, getattr(getattr(error, "param", None), "opts", ())):
                text = f"invalid value for `--{where[0]}`: {error.message}"
                raise UsageError(text, f"mend it in {where[1]}") from error
            if not ctx.meta.get(_AS_JSON):
                raise
            output.as_json = True  # a flag that does not exist ends the parsing before `--json` is read
            text = error.format_message().rstrip(".")
            raise UsageError(text[:1].lower() + text[1:], f"see `embedcli {ctx.invoked_subcommand} --help`") from error
        except (UsageError, Mismatch) as error:
            where = _where(ctx, _NAMED.findall(f"{error} {error.hint}"))
            if not where:
                raise
            before = f"{error.hint}; " if error.hint else ""
            raise type(error)(str(error), f"{before}`--{where[0]}` comes from {where[1]}") from error


def _values_in(variable: str, text: str) -> list[str]:
    """The values in a variable: blanks separate them, but for those in quotes. Typer would split `'old stuff/*'` into
    two patterns, of which the first one leaves out every `old`."""
    words = shlex.shlex(text, posix=True, punctuation_chars="")
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    try:
        return list(words)
    except ValueError:
        raise UsageError(
            f"`{variable}={text}` has a quote that does not end", "put a value with a quote in it into the other quotes"
        ) from None


_NAMED = re.compile(r"`(--[a-z-]+)")


def keep_file(context: typer.Context, value: str | None) -> None:
    """The callback of `--config`: the file is read before the command that it is for."""
    context.meta[_FILE] = value


def _where(ctx: Any, flags: Iterable[str]) -> tuple[str, str] | None:
    """The first of these flags whose value was not typed, and where it comes from."""
    known = ctx.meta.get(_ORIGINS, Origins(None, {})).of
    command = ctx.invoked_subcommand
    for flag in flags:
        for key in (flag[2:], f"{command}-{flag[2:]}"):
            if key in known and flag != "--index":
                return flag[2:], known[key]
    return None


def _origins(command: Any, parsed: Any, by_name: Mapping[str, Any], file: Path | None) -> Iterator[tuple[str, str]]:
    for key, option in options(command):
        source = parsed.get_parameter_source(option.name)
        if source is not None and source.name == "ENVIRONMENT":
            yield key, f"the environment, `{option.envvar}`"
        elif option.name in by_name and (source is None or source.name != "COMMANDLINE"):
            yield key, f"`{file}`"
        elif key == "index" and os.environ.get(INDEX) and (source is None or source.name != "COMMANDLINE"):
            yield key, f"the environment, `{INDEX}`"


def flags_of(commands: Iterable[Any]) -> dict[str, Flag]:
    """All flags that a file may set."""
    flags: dict[str, Flag] = {}
    for command in commands:
        paths = _paths_of(command)
        for key, option in options(command):
            is_path = option.metavar in PATHS or option.name in paths
            flags.setdefault(key, Flag(key, option.is_bool_flag, option.multiple, is_path))
    return {key: flag for key, flag in flags.items() if key not in NOT_SET_BY_FILE}


def _paths_of(command: Any) -> set[str]:
    """The names of parameters whose values are paths."""
    hints = get_type_hints(command.callback)
    return {name for name, hint in hints.items() if Path in (hint, *get_args(hint))}
