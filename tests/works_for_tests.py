"""Works for the pool's tests, apart from them so that a child need not import pytest."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable

from embedcli.errors import UnreadableSource
from embedcli.reading.rows import Read, ReadingWork, ReadRecords
from embedcli.records import Record, Records, Source

Beat = Callable[[int], None]
HANGS_S = 600.0


class Acts:
    """A work whose tasks say what happens: `crash`, `hang`, ... ; anything else is echoed."""

    def start(self) -> None:
        self.hoard: list[bytes] = []

    def __call__(self, task: str, beat: Beat, *, with_forms: bool) -> object:
        act, _, value = task.partition(" ")
        return getattr(self, act, lambda *_: task)(value, beat, with_forms)

    def crash(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def in_a_tuple(self, value: str, *_: object) -> tuple[str]:
        return (value,)

    def hang(self, *_: object) -> None:
        time.sleep(HANGS_S)

    def hang_with_forms(self, _value: str, _beat: Beat, with_forms: bool) -> str:
        if with_forms:
            time.sleep(HANGS_S)
        return "read without forms"

    def beat_slowly(self, value: str, beat: Beat, _with_forms: bool) -> str:
        for page in range(int(value)):
            beat(page)
            time.sleep(0.1)
        return "all pages"

    def beat_until(self, value: str, beat: Beat, _with_forms: bool) -> str:
        while not os.path.exists(value):
            beat(1)
            time.sleep(0.05)
        return "there it is"

    def think(self, value: str, *_: object) -> str:
        time.sleep(float(value))
        return "thought"

    def hold_megabytes(self, value: str, *_: object) -> int:
        return len(bytearray(int(value) << 20))

    def memory_bomb(self, *_: object) -> int:
        return len(bytearray(1 << 30))

    def silent_abort(self, *_: object) -> None:
        os.abort()

    def loud_abort(self, *_: object) -> None:
        os.write(2, b"free(): invalid pointer\n")
        os.abort()

    def leak(self, *_: object) -> int:
        self.hoard.append(b"x" * (16 << 20))
        return os.getpid()

    def big(self, value: str, *_: object) -> bytes:
        return bytes(int(value))

    def refuse(self, value: str, *_: object) -> None:
        raise UnreadableSource(value, "told so")

    def bug(self, *_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    def exit(self, *_: object) -> None:
        sys.exit(0)

    def modules(self, *_: object) -> list[str]:
        return sorted(sys.modules)

    def state(self, *_: object) -> dict[str, object]:
        return {
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "nice": os.nice(0),
            "sigint": signal.getsignal(signal.SIGINT),
            "sigterm": signal.getsignal(signal.SIGTERM),
        }


class DiesOfWord(ReadingWork):
    """The real work, which dies of a record with the word `killer` in its text."""

    def _records(self, task: Records, beat: Beat) -> ReadRecords:
        self._die(task.records)
        return super()._records(task, beat)

    def _record(self, container: Source, record: Record, beat: Beat) -> Read:
        self._die([record])
        return super()._record(container, record, beat)

    def _die(self, records: Iterable[Record]) -> None:
        if any("killer" in record.text for record in records):
            os.kill(os.getpid(), signal.SIGSEGV)


class RaisesAtStart:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def start(self) -> None:
        raise self.error

    def __call__(self, task: str, beat: Beat, *, with_forms: bool) -> str:
        return task


class DiesAtStart(RaisesAtStart):
    def start(self) -> None:
        print("no room for me", flush=True)
        os._exit(7)
