"""The program: the commands, and the one place where an error becomes a message, a hint and an exit code.

In: argv. Out: the exit code of the process, from the table in the README. Each command imports heavy packages itself.
Not here: any work.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from embedcli.cli.app import app
from embedcli.cli.output import output
from embedcli.errors import EmbedcliError, Stopped, StorageError, disk_error

STOPPED_S = 3.0
"""How long a program that a signal has stopped waits for the reader of its output to take the rest."""

STDOUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
"""Errors of writing to stdout when it is a file. Errors of writing to the index are StorageErrors."""


def main() -> None:
    """Run the program, and end it at once where an engine is still being opened: nobody waits for that, and a native
    library that goes on while Python takes itself apart aborts the process."""
    try:
        _run()
    except SystemExit as end:
        if threading.active_count() > 1 and _is_feeding():
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(end.code if isinstance(end.code, int) else bool(end.code))
        raise


def _is_feeding() -> bool:
    from embedcli.config import FEEDER_THREAD

    return any(thread.name == FEEDER_THREAD for thread in threading.enumerate())


def _run() -> None:
    """Every EmbedcliError becomes a message, a hint and an exit code here, and nowhere else."""
    if not sys.warnoptions:  # nobody asked for them by PYTHONWARNINGS
        warnings.simplefilter("ignore")  # from one library to another: under `--quiet`, cron would mail them each night
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next opened file would get its descriptor, and our messages
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        if isinstance(sys.stdout.buffer, io.RawIOBase):
            # PYTHONUNBUFFERED: a raw stream that a signal or a full disk interrupts writes a part and raises nothing
            sys.stdout = open(sys.stdout.fileno(), "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115
        sys.stdout.reconfigure(errors="backslashreplace")  # the locale may lack characters of a file name
    stdout = sys.stdout
    try:
        try:
            app(prog_name="embedcli")
        except (Stopped, KeyboardInterrupt) as stop:  # the latter before a command has installed its own handler
            _end_stopped(stop)
        finally:
            sys.stdout.flush()  # here, where a failure can still be reported
    except SystemExit:
        if sys.stdout is not stdout:  # so Typer exits with 1 where the reader of our output has left
            sys.exit(_reader_has_left())
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a bug is reported as a bug
        sys.exit(_code_of(error))


def _end_stopped(stop: Stopped | KeyboardInterrupt) -> NoReturn:
    """Write what is left of the output and say that a signal came, but wait for no reader that takes nothing."""
    if isinstance(stop, Stopped):
        with _exiting_after(STOPPED_S, stop.exit_code):
            sys.stdout.flush()
            sys.exit(_code_of(stop))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends the process at once
    with _exiting_after(STOPPED_S, code := 128 + signal.SIGINT):
        sys.stdout.flush()
        sys.exit(code)


@contextmanager
def _exiting_after(seconds: float, code: int) -> Iterator[None]:
    """End the process where this takes longer: whoever should read what is written may never do so."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _code_of(error: Exception) -> int:
    """Say what has ended the program, and return its exit code."""
    from embedcli.report import say, silence  # here: a start that ends well has no use for it

    if isinstance(error, EmbedcliError):
        if output.debug:
            traceback.print_exception(error)
        say(f"error: {error}" + (f"\n\nhint: {error.hint}" if error.hint else ""))
        if output.as_json:
            try:
                print(json.dumps({"exit_code": error.exit_code, "error": str(error), "hint": error.hint}), flush=True)
            except BrokenPipeError:
                return _reader_has_left()
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return _reader_has_left()
    if isinstance(error, OSError) and (found := disk_error(error)) is not None:
        return _code_of(found)
    if isinstance(error, OSError) and error.errno in STDOUT_ERRORS:
        say(f"error: cannot write the output: {error.strerror}\n\nhint: only the output is lost, all work is done")
        silence(sys.stdout)
        return StorageError.exit_code
    traceback.print_exception(error)
    say(
        "error: this is a bug in embedcli\n\n"
        "hint: report the lines above; the same command continues from the last checkpoint"
    )
    return 1


def _reader_has_left() -> int:
    """The exit code where nobody reads our output any more, as after `head`: there is nobody to tell."""
    from embedcli.report import silence

    silence(sys.stdout)
    return 128 + signal.SIGPIPE
