"""Whether the machine of a worker would do what the run's own machine does.

In: a Job; the model that was found here. Out: nothing, or EmbedcliError where this machine has another version of the
model, or does not see the index or the sources.
Not here: the run of the worker (worker_run.py).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from embedcli.errors import InputError, Mismatch, StorageError
from embedcli.paths import is_file
from embedcli.run.settings import fingerprints_of

if TYPE_CHECKING:
    from embedcli.cluster.job import Job
    from embedcli.index.generations import Index
    from embedcli.models.folder import Model


def check_folders(job: Job, index: Index) -> None:
    """Raise StorageError or InputError where this machine does not see what the run sees."""
    folder = index.staging / job.run
    if not is_file(folder / "run.json"):
        raise StorageError(
            f"`{folder}` is not there: the index has to lie on a filesystem that every worker shares",
            "mount it under the same path on every machine",
        )
    if job.witnesses and not any(_sees(file, size) for file, size in job.witnesses):
        raise InputError(
            f"`{job.witnesses[0][0]}` and other sources are not there, or have another size",
            "mount the sources under the same path on every machine",
        )


def _sees(file: str, size: int) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(file).st_size == size
    return False


def check_same(job: Job, model: Model) -> None:
    """Raise Mismatch where this machine would make other vectors, cuts or texts."""
    here = fingerprints_of(model, job.settings)
    if here != job.fingerprints:
        what = next(
            name for name in ("model", "chunk", "read") if getattr(here, name) != getattr(job.fingerprints, name)
        )
        raise Mismatch(
            f"`{model.name}` is another model there: its fingerprint `{what}` is {getattr(here, what)},"
            f" that of the run is {getattr(job.fingerprints, what)}",
            "fetch the same model on every machine: `embedcli pull`",
        )
