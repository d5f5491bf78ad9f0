"""What `embedcli verify` says: each damaged file, and what repairs it.

In: a verdict. Out: lines on stdout, hints.
Not here: flags, the note for the next run (cli/verify.py), looking for damage (verbs/verify.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedcli.cli.app import print_json
from embedcli.errors import StorageError, quoted
from embedcli.report import many, one_line

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.verbs.verify import Verdict


def hints_of(index: Index, verdict: Verdict, unnoted: StorageError | None) -> list[str]:
    """What to type against each kind of damage that there is."""
    place = f"generations/{verdict.generation:06d}"
    files, again = {item.file for item in verdict.damage}, f"`embedcli ingest --index {quoted(index.shown)}`"
    change_list, keys = (quoted(index.folder / (verdict.first_below(name) or "")) for name in ("changes", "keys"))
    all_rows = f"`embedcli changes {quoted(index.shown)} --since 0`"
    other = quoted(index.path((verdict.damaged_others or [0])[0]))
    hints = {
        "shards": unnoted.hint if unnoted else f"{again} reads the documents of damaged shards again",
        "whole": index.way_back(verdict.generation),
        "probe": f"{again} makes the probe set again",
        "other": f"`rm -r {other}` removes a generation that is no way back; the current one needs nothing of it",
        "stray": f"`rm -r {quoted(index.folder / (verdict.stray or ''))}`: the index has nothing in it",
        "keys": f"`rm {keys}`: it spares no more than computing some vectors again",
        "changes": f"`mv {change_list} {change_list}.damaged`: loaders that need it load everything again",
        "lost changes": f"{all_rows} gives loaders everything; `sync` loads it itself",
        "cache": f"`rm -r {quoted(index.cache)}`: the next search makes it again",
    }
    damaged = {
        "shards": bool(verdict.damaged_shards),
        "whole": bool(files & {f"{place}/documents.parquet", f"{place}/manifest.json"}),
        "probe": f"{place}/probe.npy" in files,
        "other": bool(verdict.damaged_others),
        "stray": verdict.stray is not None,
        "keys": verdict.first_below("keys") is not None,
        "changes": verdict.first_below("changes") is not None and not verdict.has_lost_list,
        "lost changes": verdict.has_lost_list,
        "cache": verdict.first_below("cache") is not None,
    }
    return [hints[kind] for kind, is_damaged in damaged.items() if is_damaged]


def print_damage(verdict: Verdict, *, after: int) -> None:
    for damage in verdict.damage[after:]:
        print(f"{one_line(damage.file)}: {damage.problem}", flush=True)


def print_verdict(verdict: Verdict, as_json: bool, *, printed: int, probed: bool) -> None:
    if as_json:
        print_json({"exit_code": verdict.exit_code, **verdict.to_json()})
        return
    print_damage(verdict, after=printed)
    if not verdict.damage:
        cosine = f", probe set {verdict.probe_cosine:.4f}" if verdict.probe_cosine is not None else ""
        none = ", the index has no probe set yet" if probed and not cosine else ""
        print(
            f"generation {verdict.generation} is undamaged: {many(verdict.shards, 'shard')},"
            f" {many(verdict.rows, 'row')}, {many(verdict.sources, 'source')}{cosine}{none}"
        )
