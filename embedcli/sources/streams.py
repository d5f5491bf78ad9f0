"""Streams of records: what came on stdin under a name is a root of its own, without a place.

In: what was asked, the streams that the index knows. Out: Scopes; the file that holds the stream while a run lasts.
A run without one leaves those that are known alone. Not here: reading records (reading/containers/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from embedcli.config import Options
from embedcli.errors import InputError, quoted, storage_errors
from embedcli.records import Root, digest
from embedcli.sources.roots import Scope, Scopes, StreamIn, with_rules
from embedcli.standard_input import readable_stdin

SPOOL = "stream-in.tmp"
"""What a killed run leaves under such a name makes no folder somebody else's."""

BLOCK_BYTES = 1 << 20


def with_streams(scopes: Scopes, asked: Options, known: Sequence[Root], *, everything: bool) -> Scopes:
    """The scopes with the streams that the index knows, and the one of this run. Raises InputError."""
    roots = {root.path: root for root in known}
    found: list[Scope] = []
    if asked.stream is not None:
        name = asked.stream.name
        before = roots.get(name)
        root = before or Root(id=digest("stream", name), path=name, stream=True)
        roots[name] = replace(root, records=with_rules(root.records, asked.records))
        stream = StreamIn(asked.stream.file, asked.stream.whole)
        found.append(Scope(roots[name], stream=stream, before=before if before != roots[name] else None))
    missing = [root.path for root in known if not any(scope.is_all_of(root) for scope in found)] if everything else []
    if missing:
        at = f"--index {quoted(asked.shown_index)}"
        raise InputError(
            f"`{missing[0]}` came as a stream, and a rebuild needs every source",
            f"give it again: `... | embedcli ingest {at} --records - --name {quoted(missing[0])} --whole --rebuild`,"
            f" or remove it: `embedcli forget {quoted(missing[0])} {at}`",
        )
    return replace(scopes, roots=(*scopes.roots, *roots.values()), scopes=(*scopes.scopes, *found))


@contextmanager
def spooled(asked: Options, folder: Path, stdin: BinaryIO | None = None) -> Iterator[Options]:
    """Read stdin to its end into a file of `folder`, which goes with the context: a run may have to read it twice. One
    that a killed run has left goes in any case.

    Raises StorageError, and InputError where nothing came or can be read.
    """
    file = folder / SPOOL
    if asked.stream is None or asked.stream.file:
        with storage_errors(folder):
            file.unlink(missing_ok=True)
        yield asked
        return
    source = readable_stdin() if stdin is None else stdin
    try:
        with storage_errors(folder), open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as sink:
            while block := source.read(BLOCK_BYTES):
                sink.write(block)
            size_bytes = sink.tell()
        if not size_bytes:
            raise InputError(
                f"nothing came on stdin for `{asked.stream.name}`; nothing was changed",
                "look at what the command before the pipe says",
            )
        yield replace(asked, stream=replace(asked.stream, file=str(file)))
    finally:
        file.unlink(missing_ok=True)
