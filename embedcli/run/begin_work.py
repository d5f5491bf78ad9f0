"""The first steps of a run that has work: free space, the staging folder, what killed runs had finished.

In: the record of the run. Out: the owners of what changes while it works (Work).
Not here: the lock and the history (begin.py), the work (stream.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedcli.index.known_vectors import KnownVectors
from embedcli.run.adoption import adopt
from embedcli.run.checkpoints import Checkpoints
from embedcli.run.embedder import Embedder, known_reference
from embedcli.run.pace.remaining import Remaining, ratios_of
from embedcli.run.pending import PendingDocuments
from embedcli.run.publishing.own_staging import begin_staging, new_outcomes
from embedcli.run.tally import Tally

if TYPE_CHECKING:
    from embedcli.engines.probe import Reference
    from embedcli.index.outcomes import Outcomes
    from embedcli.index.staging import Staging
    from embedcli.records import SourceKey
    from embedcli.run.record import Run


@dataclass(frozen=True)
class Work:
    """What changes while a run works, each with one owner.

    `keyless`: shards of the index whose vectors cannot be found again, since their keys are lost.
    `adopted`: sources that killed runs had finished; they are not read.
    """

    vectors: KnownVectors
    pending: PendingDocuments
    embedder: Embedder
    checkpoints: Checkpoints
    tally: Tally
    remaining: Remaining
    keyless: frozenset[str]
    adopted: frozenset[SourceKey]


def begin(run: Run) -> Work:
    """Begin the staging folder and gather every vector that is known. Raises StorageError."""
    _warn_of_cut(run)
    staging = begin_staging(run)
    vectors = KnownVectors(dim=run.settings.dim, folder=staging.folder)
    outcomes, tally = new_outcomes(run, staging), Tally.of(run.plan)
    outcomes.add(run.plan.outcomes)
    remaining = Remaining(run.plan.tasks, ratios_of(run.known.table))
    adopted = adopt(run, staging, vectors)
    for task, outcome in adopted:
        tally.adopt(task, outcome)
        remaining.note(task, to_embed=None)
    tally.progress.bytes_total -= tally.progress.bytes_read
    tally.progress.bytes_read = 0  # else it would seem that this run had read them, in no time
    outcomes.add(outcome for _, outcome in adopted)
    _check_space(run, adopted=len(adopted))
    reference = known_reference(
        run.index, run.known.current, run.known.leftovers,
        model_fingerprint=run.fingerprints.model, dim=run.settings.dim,
    )  # fmt: skip
    return work_of(
        run, staging, outcomes, vectors, tally, remaining,
        reference=reference, adopted=frozenset(task.key for task, _ in adopted),
    )  # fmt: skip


def work_of(
    run: Run,
    staging: Staging,
    outcomes: Outcomes,
    vectors: KnownVectors,
    tally: Tally,
    remaining: Remaining,
    *,
    reference: Reference | None,
    adopted: frozenset[SourceKey] = frozenset(),
) -> Work:
    """The owners of what changes, who write into `staging`; `vectors` get all those of the kept generations too."""
    kept = [shard for shard in run.index.kept_shards() if shard.name not in run.known.damaged]
    keyless = frozenset(shard.name for shard in kept if not vectors.add(shard))
    embedder = Embedder(run, reference, tally.progress, keep_probe=staging.keep_probe)
    pending = PendingDocuments(vectors, embedder.open, dim=run.settings.dim, spool_folder=staging.folder)
    checkpoints = Checkpoints(
        staging, outcomes, pending, vectors,
        every_bytes=run.asked.checkpoint_bytes, every_s=run.asked.checkpoint_every_s,
    )  # fmt: skip
    return Work(
        vectors, pending, embedder, checkpoints, tally, remaining, keyless=keyless, adopted=adopted,
    )  # fmt: skip


def _warn_of_cut(run: Run) -> None:
    new = run.known.current is None or run.known.rebuilding
    if new and run.settings.dim < run.model.width and not run.model.matryoshka:
        run.report.line(
            f"note: `{run.settings.model}` was not trained to be cut: {run.settings.dim} of its {run.model.width}"
            " dimensions lose more than those of a Matryoshka model"
        )


def _check_space(run: Run, *, adopted: int) -> None:
    """A rough estimate, before the model loads: text and vectors of everything that is to be read."""
    share = 1 - adopted / max(1, run.plan.tasks.count)
    text_bytes = run.plan.tasks.text_bytes * share
    rows = text_bytes / (run.settings.max_tokens * 3)
    run.index.disk.check_room(
        run.index.folder,
        rows * run.settings.dim * 4 + text_bytes * 0.7,
        purpose="this run",
        hint="free some space, or put the index on another disk with `--index`",
    )
