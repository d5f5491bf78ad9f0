"""Which store a target is, opened; and what to install where its client is missing.

In: a Target. Out: a Store, or TargetError with the command that installs the client.
Not here: the stores.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from embedcli.errors import TargetError
from embedcli.stores.contract import Store
from embedcli.stores.target import Target

STORES = {
    "postgresql": ("pgvector", "pgvector"),
    "qdrant": ("qdrant", "qdrant"),
    "milvus": ("milvus", "milvus"),
    "chroma": ("chroma", "chroma"),
    "lancedb": ("lancedb", "lancedb"),
    "elasticsearch": ("elastic", "elasticsearch"),
    "opensearch": ("elastic", "opensearch"),
    "sqlite": ("sqlite_vec", "sqlite-vec"),
}
"""For each kind of target its module here, and the extra that installs its client."""


@contextmanager
def opened(target: Target) -> Iterator[Store]:
    """Open the store for the time of a `with`. Raises TargetError."""
    module_name, extra = STORES[target.kind]
    module = importlib.import_module(f"embedcli.stores.{module_name}")
    try:
        store: Store = module.connect(target)
    except ImportError as error:
        raise TargetError(
            f"a `{target.kind}` target needs the package `{error.name}`, which is not installed",
            f"install it with `pip install 'embedcli[{extra}]'`",
        ) from error
    try:
        yield store
    finally:
        store.close()
