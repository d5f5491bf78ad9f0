"""The story of a run: plan, read, chunk, reuse, embed, check, write, publish. The page to read first.

In: what the user asked for. Out: the next generation of the index, or nothing where nothing changed, and a Summary.
Whatever ends the run half-way leaves the last checkpoint in `staging/`, from which the next one goes on.
Not here: any of the stages themselves; they do not know one another, and only this module knows their order.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from embedcli import closing, config, documents, healing, lock, plan, readers, state
from embedcli.config import Asked, Fingerprints, IndexSettings
from embedcli.disk import Disk
from embedcli.errors import DamagedShard, EmbedcliError, InputError, Mismatch, NoIndex, StorageError
from embedcli.generations import Index
from embedcli.manifest import Generation
from embedcli.models import Model
from embedcli.plan import Plan, Rules
from embedcli.records import Root
from embedcli.report import Report, Summary
from embedcli.scopes import Scopes, settle_scopes
from embedcli.staging import Leftover, leftovers

DEFAULT_MAX_FILE_BYTES = 256 << 20
FOLDERS_TOLD = 5


@dataclass(frozen=True)
class Tools:
    """The seams of a run: what it is made with, and what tests put in its place."""

    resolve: Callable[[Asked, IndexSettings | None], Model]
    device_kind: Callable[[Asked], str]
    open_engine: Callable[[Model, IndexSettings, str], Any]
    stop_signal: Callable[[], int | None] = lambda: None
    disk: Disk = dataclasses.field(default_factory=Disk)
    make_pool: Callable[..., Any] | None = None
    """Where the reading is done; None: in processes (workers.Pool)."""


def ingest(asked: Asked, *, tools: Tools, report: Report) -> Summary:
    """Bring the index up to date with its sources. Raises EmbedcliError; what was finished is then checkpointed."""
    index = Index(asked.index, disk=tools.disk, warn=report.warn)
    index.check()
    summary = Summary(str(index.folder), exit_code=1)  # a bug, unless it ends otherwise
    with _remembered(index, summary):
        known = look(index, asked, report)
        settle_scopes(asked, known.roots, everything=known.rebuilding)  # a source that is not there: touch nothing
        with opened(index, report) as held:
            try:
                _run_past_damage(index, asked, tools, report, held, summary)
            finally:
                report.close()
    if summary.idle:
        report.line(f"{summary.sources['unchanged']:,} unchanged, nothing to do")
    return summary


@contextmanager
def _remembered(index: Index, summary: Summary) -> Iterator[None]:
    """A run is a line of the history, be it refused, failed or a bug; not where it made no index."""
    started = time.monotonic()
    error = ""
    try:
        yield
    except EmbedcliError as raised:
        summary.exit_code, error = raised.exit_code, str(raised)
        raise
    finally:
        summary.elapsed_s = round(time.monotonic() - started, 3)
        line = {"ended_at": datetime.now(UTC).isoformat(timespec="seconds"), **summary.to_json(), "error": error}
        with suppress(StorageError):
            if index.state.is_dir():
                state.append_run(index.state, line, index.disk)


def _run_past_damage(
    index: Index, asked: Asked, tools: Tools, report: Report, held: lock.Lock, summary: Summary
) -> None:
    """A shard found damaged on the way is noted, and the run begun again: its documents are then read anew."""
    met: set[str] = set()
    while True:
        known = look(index, asked, report, quiet=True)
        scopes = settle_scopes(asked, known.roots, everything=known.rebuilding)
        try:
            return _run(index, asked, known, scopes, tools, report, held, summary)
        except DamagedShard as error:
            if error.name in met:
                raise
            met.add(error.name)
            report.warn(f"{error}; its documents are read again")
            state.note_damaged(index.state, {error.name}, tools.disk)


@dataclass(frozen=True)
class Known:
    """What the index says before the run: its current generation, and what runs that did not end have left.

    `settings` and `model_fingerprint` are those to go on with: of the current generation, or of a killed run that
    was the first, or was a rebuild.
    """

    current: Generation | None
    leftovers: tuple[Leftover, ...]
    settings: IndexSettings | None
    model_fingerprint: str
    roots: tuple[Root, ...]
    rebuilding: bool


def look(index: Index, asked: Asked, report: Report, *, quiet: bool = False) -> Known:
    """Read the index's memory. Raises NoIndex (exit 10) and Mismatch (exit 12)."""
    index.check()
    current = index.current()
    found = leftovers(index.staging)
    parent = current.number if current else None
    newest = next((item for item in reversed(found) if item.header.parent == parent), None)
    roots = current.roots if current else () if asked.sources else _roots_of(newest)
    if current is not None and not asked.sources and not roots:
        raise InputError(
            f"index `{index.folder}` has no roots any more, and no SOURCE was given",
            f"name what to index: `embedcli ingest docs/ --index {index.folder}`",
        )
    if not asked.sources and not roots:
        raise NoIndex(
            f"`{index.folder}` is not an index, and no SOURCE was given",
            "name what to index: `embedcli ingest docs/ --index INDEX`",
        )
    if newest is not None and _goes_on(asked, newest, current):
        settings = IndexSettings.from_json(newest.header.settings)
        known = Known(
            current, tuple(found), settings, newest.header.fingerprints["model"], roots, newest.header.rebuild
        )
    else:
        if current is not None and not asked.rebuild:
            config.check_against_memory(asked, current.settings)
        fingerprint = current.fingerprints.model if current else ""
        known = Known(current, tuple(found), current.settings if current else None, fingerprint, roots, asked.rebuild)
    if not quiet:
        report.line(f"{'index' if current else 'new index'} {index.folder}")
    return known


def _goes_on(asked: Asked, item: Leftover, current: Generation | None) -> bool:
    """Whether this run takes up the settings of a killed one: a first run, or a rebuild, that no flag contradicts."""
    settings = IndexSettings.from_json(item.header.settings)
    if asked.rebuild or asked.model not in (None, settings.model) or (current and not item.header.rebuild):
        return False
    try:
        config.check_against_memory(asked, settings)
    except Mismatch:
        return False
    return True


def _roots_of(item: Leftover | None) -> tuple[Root, ...]:
    """The roots of a first run that was killed before it published."""
    return tuple(
        Root(**{**root, "include": tuple(root["include"]), "exclude": tuple(root["exclude"])})
        for root in (item.header.roots if item else ())
    )


@contextmanager
def opened(index: Index, report: Report) -> Iterator[lock.Lock]:
    """The index's folder, made where it is new, and its lock. A new index in which nothing came to be goes again."""
    made_folder = not index.folder.exists()
    index.disk.make_folder(index.folder)
    with lock.Lock(index.folder, network=lock.on_network(index.folder), warn=report.warn) as held:
        new = not index.generations.exists()
        try:
            index.create()
            yield held
        except EmbedcliError:
            if new:
                _remove_if_empty(index, folder_too=made_folder)
            raise


def _remove_if_empty(index: Index, *, folder_too: bool) -> None:
    """`generations` goes last: as long as it is there, the folder is known for an index."""
    kept = (index.staging, index.keys, index.changes, index.generations)
    if index.current_number() is not None or any(any(folder.iterdir()) for folder in kept if folder.exists()):
        return
    index.disk.remove(index.state)
    with suppress(OSError):
        (index.folder / "lock").unlink()
        for folder in (*kept, index.folder) if folder_too else kept:
            folder.rmdir()


def _run(
    index: Index, asked: Asked, known: Known, scopes: Scopes, tools: Tools, report: Report, held: lock.Lock,
    summary: Summary,
) -> None:  # fmt: skip
    number = known.current.number if known.current else None
    index.clear(keep=asked.keep_generations)
    damaged = index.damaged(known.current) if known.current else set()
    base, remembered = base_table(index, known, damaged)
    rules = _rules(asked, known)
    mounts = known.current.mounts if known.current else {}
    tonight = plan.make(base, scopes, mounts, rules, say=report.looking)
    if elsewhere := healing.read_elsewhere(tonight, base, damaged):
        report.line(f"{elsewhere:,} documents of damaged shards are read again, wherever they lie")
    report.line(tonight.walked.line())
    for folder, why in sorted(tonight.unlisted.items())[:FOLDERS_TOLD]:
        report.warn(f"`{folder}` {why}: what the index has of it stays as it is")
    if tonight.tasks.count + len(tonight.outcomes) + base.num_rows == 0:
        raise InputError(
            f"no files found in {', '.join(f'`{scope.root.path}`' for scope in scopes.scopes)}",
            "check the path; hidden files and what `--include`, `--exclude`, `.embedcliignore` leave out do not count",
        )
    if tonight.excluded and not (tonight.unchanged or tonight.tasks.count or tonight.outcomes):
        raise InputError(
            f"the filters leave none of {len(tonight.excluded):,} known sources; nothing was changed",
            "mend `--include` and `--exclude`; an empty pattern, `''`, forgets those that are remembered",
        )
    if nothing_to_do(tonight, known, scopes, asked) and not damaged:
        state.write_seen(index.state, number, [*remembered, *tonight.seen], tools.disk) if tonight.seen else None
        assert known.current is not None
        for item in known.leftovers if tonight.whole else ():
            tools.disk.remove(item.folder)
        _summarise_unchanged(summary, known.current, base, tonight, asked)
        return
    from embedcli.embedding import Embedding  # half a second of imports, and only where there is work

    model = tools.resolve(asked, known.settings)
    settings, prints = settle(asked, known, model, tools.device_kind(asked))
    embedding = Embedding(
        index=index, asked=asked, known=known, scopes=scopes, plan=tonight, base=base, remembered=remembered,
        rules=rules, model=model, settings=settings, fingerprints=prints, tools=tools, report=report, held=held,
    )  # fmt: skip
    embedding.run(summary)


def base_table(index: Index, known: Known, damaged: set[str]) -> tuple[Any, list[documents.Mark]]:
    """The documents of the current generation with what was seen of them since, and those marks."""
    if known.current is None:
        return documents.empty(), []
    remembered = state.read_seen(index.state, known.current.number)
    table = documents.amend(index.documents(known.current.number), remembered)
    return healing.as_unread(table, damaged), remembered


def _rules(asked: Asked, known: Known) -> Rules:
    remembered = known.settings.max_file_bytes if known.settings else DEFAULT_MAX_FILE_BYTES
    return Rules(
        index=asked.index,
        read_all=asked.reread or known.rebuilding,
        rebuilding=known.rebuilding,
        rehash=asked.rehash,
        retry_failed=asked.retry_failed,
        read_fingerprint=config.read_fingerprint(readers.READ_VERSION),
        max_file_bytes=remembered if asked.max_file_bytes is None else asked.max_file_bytes,
        max_gone_percent=asked.max_gone_percent,
    )


def nothing_to_do(tonight: Plan, known: Known, scopes: Scopes, asked: Asked) -> bool:
    """Whether the current generation already is what this run would publish."""
    current = known.current
    if current is None or not current.complete or known.rebuilding or asked.rebuild:
        return False
    same_roots = current.roots == scopes.roots and all(
        tuple(current.mounts.get(root.id, ())) == tonight.mounts.get(root.id, ()) for root in scopes.roots
    )
    named = asked.model is None or asked.model == current.settings.model
    same_size = asked.max_file_bytes in (None, current.settings.max_file_bytes)
    return same_roots and named and same_size and not (tonight.tasks.count or tonight.outcomes or tonight.dropped)


def settle(asked: Asked, known: Known, model: Model, device_kind: str) -> tuple[IndexSettings, Fingerprints]:
    """Settings and fingerprints of the run. Raises UsageError (exit 2) and Mismatch (exit 12)."""
    from embedcli.chunker import BOUNDARY_VERSION

    memory = known.settings
    same_model = memory is not None and memory.weights_digest == model.weights_digest
    remembered = memory if same_model else None
    quantization = asked.quantization or (remembered.quantization if remembered else None)
    fingerprint = config.model_fingerprint(model.fingerprint, quantization)
    if memory is not None and not asked.rebuild and fingerprint != known.model_fingerprint:
        raise config.mismatch(asked.index, "--model", f"`{memory.model}`", f"`{model.name}`")
    max_tokens, overlap = config.settle_chunking(asked, remembered, model_max_tokens=model.max_tokens)
    dim = config.settle_dim(asked, remembered, width=model.width, matryoshka=model.matryoshka)
    settings = IndexSettings(
        model=model.name,
        commit=model.commit,
        weights_digest=model.weights_digest,
        tokenizer_digest=model.tokenizer_digest,
        dim=dim,
        max_tokens=max_tokens,
        overlap=overlap,
        no_text=asked.no_text if asked.no_text is not None else bool(memory and memory.no_text),
        device_kind=device_kind if memory is None else memory.device_kind,
        max_file_bytes=_rules(asked, known).max_file_bytes,
        quantization=quantization,
    )
    chunk = config.chunk_fingerprint(
        model.tokenizer_digest, max_tokens=max_tokens, overlap=overlap, boundary_version=BOUNDARY_VERSION
    )
    return settings, Fingerprints(fingerprint, chunk, config.read_fingerprint(readers.READ_VERSION))


def _summarise_unchanged(summary: Summary, current: Generation, base: Any, tonight: Plan, asked: Asked) -> None:
    closing.summarise(summary, generation=current, plan=tonight, table=base, moved=0, news=0, strict=asked.strict)
    summary.model, summary.dim = current.settings.model, current.settings.dim
    summary.fingerprint = current.fingerprints.model
