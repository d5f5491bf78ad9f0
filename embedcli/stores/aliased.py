"""What stores with aliases have in common: NAME is an alias of one of two collections, and the other one is loaded.

In: a store's own calls for a collection (the abstract methods). Out: the parts of a Store and of a Table (contract.py)
that follow from them. A load swaps in by one change of the alias, so a kill leaves nothing of a swap to do.
Not here: the clients, how a collection is made and what a row looks like in it (qdrant.py, milvus.py, elastic.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from embedcli.stores.contract import Layout, Memory
from embedcli.stores.target import Target, not_ours, target_errors

Errors = tuple[type[Exception], ...]


class Collection(ABC):
    """A collection by its own name; `errors` are the exceptions of its client."""

    def __init__(self, target: Target, client: Any, errors: Errors, name: str, memory: Memory) -> None:
        self.name = name
        self.memory = memory
        self._target = target
        self._client = client
        self._errors = errors

    def atomic(self) -> AbstractContextManager[object]:
        return nullcontext()

    def remember(self, memory: Memory) -> None:
        with target_errors(self._target, *self._errors):
            self._keep(memory)
        self.memory = memory

    @abstractmethod
    def _keep(self, memory: Memory) -> None:
        """Write the memory."""


C = TypeVar("C", bound=Collection)


class AliasedStore(ABC, Generic[C]):
    """`alias` is the name that users query, `names` are those of the two collections. The abstract methods may raise
    `errors`, the exceptions of the client."""

    def __init__(self, target: Target, client: Any, errors: Errors, *, alias: str, names: tuple[str, str]) -> None:
        self._target = target
        self._client = client
        self._errors = errors
        self._alias = alias
        self._names = names

    @abstractmethod
    def _live_name(self) -> str | None:
        """The collection behind the alias."""

    @abstractmethod
    def _is_taken(self, name: str) -> bool:
        """Whether a collection has this name."""

    @abstractmethod
    def _open(self, name: str) -> C | None:
        """None where there is no such collection, or where it has no memory. Raises TargetError."""

    @abstractmethod
    def _make(self, name: str, layout: Layout, memory: Memory) -> C:
        """An empty collection that remembers this."""

    @abstractmethod
    def _drop(self, name: str) -> None:
        """Remove a collection."""

    @abstractmethod
    def _point_alias(self, old: str | None, new: str) -> None:
        """Let the alias point to `new`, and remove the collection `old`, to which it pointed."""

    def live(self) -> C | None:
        with target_errors(self._target, *self._errors):
            name = self._live_name()
            if name is None and self._is_taken(self._alias):
                raise not_ours(self._target)
        if name is None:
            return None
        table = self._open(name)
        if table is None:
            raise not_ours(self._target)
        return table

    def _other_name(self) -> str:
        """The collection that is loaded while the other one is live."""
        with target_errors(self._target, *self._errors):
            return self._names[1] if self._live_name() == self._names[0] else self._names[0]

    def unfinished(self) -> C | None:
        return self._open(self._other_name())

    def begin(self, layout: Layout, memory: Memory) -> C:
        name = self._other_name()
        with target_errors(self._target, *self._errors):
            if self._is_taken(name):
                if self._open(name) is None:
                    raise not_ours(self._target)
                self._drop(name)
            return self._make(name, layout, memory)

    def swap_in(self) -> None:
        with target_errors(self._target, *self._errors):
            self._point_alias(self._live_name(), self._other_name())

    def finish_swap(self) -> None:
        """A swap is one step: a kill leaves nothing of it to do."""

    def drop_unfinished(self) -> None:
        table = self._open(self._other_name())
        if table is not None:
            with target_errors(self._target, *self._errors):
                self._drop(table.name)
