"""The target as it was typed: which kind of store, where it is, the table's name, and what of it must not be printed.

In: `qdrant:./folder`, `postgresql://user:password@host/database` and the like. Out: a Target, or UsageError.
Not here: opening it (open.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from embedcli.config import shown_index
from embedcli.errors import TargetError, UsageError

KINDS = {
    "postgresql": "postgresql://USER@HOST/DATABASE",
    "qdrant": "qdrant:./FOLDER or qdrant:http://HOST:6333",
    "milvus": "milvus:./FILE.db or milvus:http://HOST:19530",
    "chroma": "chroma:./FOLDER or chroma:http://HOST:8000",
    "lancedb": "lancedb:./FOLDER or lancedb:s3://BUCKET/FOLDER",
    "elasticsearch": "elasticsearch:https://HOST:9200",
    "opensearch": "opensearch:https://HOST:9200",
    "sqlite": "sqlite:./FILE.db",
}
"""The kinds of stores, and how a target of each is typed."""
_KEYS = {
    "qdrant": "QDRANT_API_KEY",
    "milvus": "MILVUS_TOKEN",
    "chroma": "CHROMA_API_KEY",
    "elasticsearch": "ELASTIC_API_KEY",
}
"""The variables that may hold the key of a server."""
_SERVERS_ONLY = {"postgresql", "elasticsearch", "opensearch"}
_FILES_ONLY = {"sqlite"}
_RESERVED = {
    "all",
    "and",
    "any",
    "case",
    "check",
    "column",
    "create",
    "current",
    "default",
    "group",
    "index",
    "order",
    "select",
    "table",
    "user",
    "values",
    "where",
}
"""Words of SQL that folders are named by: as a table's name they would have to be quoted."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{2,47}")
"""A name that stores take as it is."""
_KEPT = {
    "sqlite": re.compile(r"sqlite_.*|embedcli_sync", re.IGNORECASE),
    "lancedb": re.compile("embedcli_sync"),
    "chroma": re.compile(".*_"),
    "postgresql": re.compile(".*__next"),
}
"""But for these: names that a store refuses, and those of what is remembered or being loaded there."""


@dataclass(frozen=True)
class Target:
    """Where a table is. `url` is what the client gets, with secrets; `path` is set for a file or folder."""

    kind: str
    url: str
    table: str
    path: Path | None = None

    @property
    def shown(self) -> str:
        """The target as messages show it: without user and password, and without a query, which may hold keys."""
        if self.path is not None:
            return f"{self.kind}:{self.path}"
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        bare = f"{parts.scheme}://{host}{parts.path}"
        return bare if self.kind == "postgresql" else f"{self.kind}:{bare}"

    @property
    def user(self) -> str | None:
        name = urlsplit(self.url).username
        return unquote(name) if name else None

    @property
    def password(self) -> str | None:
        """The password of the URL, where a store with keys gets its key: `http://:KEY@host`."""
        word = urlsplit(self.url).password
        return unquote(word) if word else None

    @property
    def key(self) -> str | None:
        """The key in the environment, without the newline with which a file of secrets often ends."""
        return os.environ.get(_KEYS.get(self.kind, ""), "").strip() or None

    @property
    def bare_url(self) -> str:
        """The URL without user and password."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], *parts[2:]))

    def without_secrets(self, text: str) -> str:
        """The text of a client's error on one line, without what only the URL and the environment should hold."""
        parts = urlsplit(self.url)
        queries = [pair.partition("=")[2] for pair in parts.query.split("&")]
        secrets = {self.url, parts.netloc.rpartition("@")[0], parts.password, self.password, self.key, *queries}
        secrets |= {repr(word.encode())[2:-1] for word in secrets if word}  # as clients show what no header can hold
        for secret in sorted((word for word in secrets if word), key=len, reverse=True):
            if self.path is None:
                text = text.replace(secret, self.shown if secret == self.url else "***")
        return " ".join(text.split())


def parse_target(text: str, *, index: Path, into: str | None = None) -> Target:
    """The target, its table named `into` or after the folder of the index. Raises UsageError."""
    table = table_name(index) if into is None else into
    if not _NAME.fullmatch(table):
        raise UsageError(
            f"`--into {table}` is not a name for a table in every store",
            "use 3 to 48 letters, digits and underscores, a letter first",
        )
    scheme, colon, rest = text.partition(":")
    if scheme == "postgres":
        scheme, text = "postgresql", f"postgresql:{rest}"
    if not colon or scheme not in KINDS or not rest:
        shown = f"`{scheme}:`" if colon else f"`{text}`"
        raise UsageError(f"{shown} is not a target to sync to", f"name one of: {', '.join(KINDS.values())}")
    table = _free_name(scheme, table, is_given=into is not None)
    if scheme == "postgresql":
        return Target(scheme, _checked_url(scheme, text), table)
    if "://" in rest:
        if scheme in _FILES_ONLY:
            raise UsageError(f"a `{scheme}:` target is a file", f"type {KINDS[scheme]}")
        return Target(scheme, _checked_url(scheme, rest), table)
    if scheme in _SERVERS_ONLY:
        raise UsageError(f"a `{scheme}:` target is a server", f"type {KINDS[scheme]}")
    if scheme == "milvus" and not rest.endswith(".db"):
        raise UsageError("a file of Milvus Lite has to end in `.db`", f"type {KINDS[scheme]}")
    path = Path(rest).expanduser().absolute()
    return Target(scheme, str(path), table, path)


def _free_name(kind: str, table: str, *, is_given: bool) -> str:
    """The name, or where nobody has given it another one, if the store keeps it. Raises UsageError."""
    if kind not in _KEPT or not _KEPT[kind].fullmatch(table):
        return table
    if is_given:
        raise UsageError(
            f"`--into {table}` is a name that `{kind}:` keeps for itself", "name another table with `--into NAME`"
        )
    return _prefixed(table)


def _checked_url(kind: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.port != 0 and (kind in {"postgresql", "lancedb"} or parts.hostname):
            return url
    except ValueError:
        pass
    raise UsageError(f"the URL of the `{kind}` target is not valid", f"type {KINDS[kind]}") from None


def table_name(index: Path) -> str:
    """The last part of the index's path or URL, spelled so that every store takes it: `My docs (2)` is `my_docs_2`,
    `index` is `embedcli_index`."""
    place = shown_index(index.absolute()).rpartition("/")[2]
    name = re.sub(r"[^a-z0-9]+", "_", place.lower()).strip("_")[:48].rstrip("_")
    return name if _NAME.fullmatch(name) and name not in _RESERVED else _prefixed(name)


def _prefixed(name: str) -> str:
    return f"embedcli_{name}"[:48].rstrip("_")


@contextmanager
def target_errors(target: Target, *kinds: type[BaseException]) -> Iterator[None]:
    """Turn the exceptions of a client into TargetErrors without secrets."""
    try:
        yield
    except kinds as error:
        raise target_error(target, error) from _bare(error, target)


def target_error(target: Target, error: BaseException) -> TargetError:
    return TargetError(
        f"`{target.shown}`: {target.without_secrets(str(error)) or type(error).__name__}",
        "mend what the message names, then run the same command again: it goes on where this one ended",
    )


def not_ours(target: Target) -> TargetError:
    """The name is taken by a table that this tool did not make."""
    return TargetError(
        f"`{target.shown}` has a `{target.table}` that embedcli did not make; it was left as it is",
        "name another table with `--into NAME`",
    )


def _bare(error: BaseException, target: Target) -> BaseException | None:
    """The cause that `--debug` prints: none where its text would show a secret."""
    return error if target.without_secrets(str(error)) == " ".join(str(error).split()) else None
