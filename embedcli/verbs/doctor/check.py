"""The result of one check of `embedcli doctor`.

In: nothing. Out: the record that every check gives.
Not here: the checks (machine.py, filesystem.py), printing (cli/doctor.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from embedcli.errors import EngineError, StorageError

GIB = 1 << 30
ENGINE, STORAGE = EngineError.exit_code, StorageError.exit_code


@dataclass(frozen=True, slots=True)
class Line:
    """The result of one check. Where it is not `well`, `mend` is what to type and `code` the exit code with which a run
    would fail for this reason."""

    what: str
    found: str
    well: bool = True
    mend: str = ""
    code: int = 0
