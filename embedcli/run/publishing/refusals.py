"""What a run does not publish: an index without text, and a rebuild that would lose rows.

In: what the index had, the documents of what would be next. Out: InputError, exit code 15; the index stays as it was.
Not here: sources that are gone (looking/gone.py), publishing (publish.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedcli.errors import InputError
from embedcli.index import documents
from embedcli.records import MOMENT_REASONS
from embedcli.run.looking.gone import SMALLEST_GUARDED, with_rows

if TYPE_CHECKING:
    from embedcli.index.outcomes import Outcomes
    from embedcli.run.record import Run


def none_readable(table: pa.Table) -> InputError:
    """For a new index, whose documents these would be."""
    reasons = _reasons(table)
    return InputError(
        f"none of the {table.num_rows} sources can be read: {reasons}",
        "what is only pictures needs OCR first" if "no_text" in reasons else "name sources that can be read",
    )


def refuse_losing_all(run: Run, table: pa.Table) -> None:
    """Raise InputError where no source has text any more, as on a file server whose disk is full: of `table` none has.

    As many of those that are still there must have had some as make a folder that does not go at once; whether what is
    gone may go is judged before. Records count with their file.
    """
    had_text = with_rows(documents.files(run.known.table), run.known.table)
    lost = documents.taken(table, documents.positions(table, set(documents.keys(had_text))))
    if lost.num_rows >= SMALLEST_GUARDED and run.rules.max_gone_percent < 100:
        raise InputError(
            f"none of the {table.num_rows:,} sources has text any more: {_reasons(lost)}; the index stays as it was",
            "restore them, or if they are right as they are, run again with `--max-gone 100`",
        )


def refuse_losing_rebuild(run: Run, outcomes: Outcomes) -> None:
    """Raise InputError if a rebuild would lose the old rows of sources that cannot be read at the moment."""
    if not run.known.rebuilding:
        return
    had_rows = run.known.table.filter(pc.greater(run.known.table.column("rows"), 0))
    reasons = outcomes.rows.column("reason")
    momentary = outcomes.rows.filter(pc.is_in(reasons, value_set=pa.array(sorted(MOMENT_REASONS))))
    lost = documents.parted(momentary, had_rows)[0].column("uri").to_pylist()
    if lost:
        raise InputError(
            f"{len(lost)} sources that had rows cannot be read now, `{lost[0]}` the first; nothing was changed",
            "mend their permissions or mount what is missing, then run the same command again",
        )


def _reasons(table: pa.Table) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in documents.count_by(table, "reason").items())
