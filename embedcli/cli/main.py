"""The program: the commands, and the one place where an error becomes a message, a hint and an exit code.

In: argv. Out: the process's status, from the table in the README. Heavy imports wait until a command needs them.
Not here: any work.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import traceback

from embedcli import __version__
from embedcli.cli import ingest, machine, upkeep
from embedcli.cli.app import app, output
from embedcli.errors import EmbedcliError, StorageError
from embedcli.report import say, silence

__all__ = ["app", "ingest", "machine", "main", "upkeep"]

PRINTED_IN_VAIN = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """The program. Every EmbedcliError becomes its message, its hint and its exit code; here and nowhere else."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file opened would take its place, and be written into
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no bug
    try:
        try:
            app(prog_name="embedcli")
        finally:
            sys.stdout.flush()  # here, where it can be told that it does not work
    except EmbedcliError as error:
        sys.exit(_fail(error))
    except KeyboardInterrupt:  # before anything was begun
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        silence(sys.stdout)  # whoever read our output has left; nothing to add
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the one place where a bug is told as a bug
        if isinstance(error, OSError) and error.errno in PRINTED_IN_VAIN:  # the index's own are StorageErrors
            say(f"error: what was to be printed cannot be written: {error.strerror}\n\nhint: all else is done")
            silence(sys.stdout)
            sys.exit(StorageError.exit_code)
        traceback.print_exc()
        say("error: this is a bug in embedcli\n\nhint: the last checkpoint stands; run again, report the lines above")
        sys.exit(1)


def _fail(error: EmbedcliError) -> int:
    if output.debug:
        traceback.print_exception(error)
    say(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""))
    if output.as_json:
        print(json.dumps({"exit_code": error.exit_code, "error": str(error), "hint": error.hint}))
    return error.exit_code
