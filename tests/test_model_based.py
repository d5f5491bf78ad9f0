"""Whatever is done to a tree, and however often its runs are killed, the index equals the one made of it from scratch.

Random sequences of edits, renames, swaps, kills, runs, rollbacks, rebuilds, moves of the whole tree, and a second root.
EMBEDCLI_LONG=1 tries many more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embedcli import keeper
from embedcli.disk import Disk
from embedcli.errors import EmbedcliError
from embedcli.generations import Index
from embedcli.verifying import verify
from tests.faults import FailAfter, GrowingFile, VanishingFile
from tests.workshop import Workshop, words

LONG = os.environ.get("EMBEDCLI_LONG") == "1"
NAMES = ["a.txt", "b.md", "sub/c.txt", "sub/d.txt", "sub/deep/e.txt", "é %25.txt", "-f.txt"]
PARAGRAPHS = [words(25, seed=seed) for seed in range(5)]
TEXTS = st.lists(st.sampled_from(PARAGRAPHS), min_size=1, max_size=4).map("\n\n".join)
name_strategy = st.sampled_from(NAMES)
SCRATCH: dict[Any, Any] = {}
"""What an index made from scratch of a tree holds, by the tree."""

Content = tuple[list[tuple[Any, ...]], dict[str, tuple[str, str | None]]]


class Nights(RuleBasedStateMachine):
    """`docs` is edited, `index` follows; `second` is another root, which no rule but its own edits."""

    @initialize(inside=st.booleans())
    def begin(self, inside: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nights-"))
        self.shop = Workshop(self.folder)
        self.inside = inside
        self.place(self.shop.docs)
        self.second, self.two_roots, self.moves = self.folder / "second", False, 0
        self.max_tokens = 64
        self.shop.write("always.txt", PARAGRAPHS[0])

    def place(self, docs: Path) -> None:
        """The corpus is there now; its index lies in it, or beside it."""
        self.shop.docs = docs
        self.shop.index = (docs if self.inside else self.folder) / "index"

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # ---- what people do to files

    def present(self) -> list[Path]:
        return [path for name in NAMES if (path := self.shop.docs / name).is_file()]

    @rule(name=name_strategy, text=TEXTS)
    def write(self, name: str, text: str) -> None:
        self.shop.write(name, text)

    @rule(name=name_strategy, broken=st.sampled_from([b"\x00\x01\x02\xff" * 40, b"", b"%PDF-1.7 torn"]))
    def make_unreadable(self, name: str, broken: bytes) -> None:
        path = self.shop.docs / name
        if not path.exists():  # over a good version it would be `stale`, which an index from scratch cannot know
            self.shop.write(name, broken)

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.present())).unlink()

    @precondition(lambda self: self.present())
    @rule(data=st.data(), name=name_strategy)
    def rename(self, data: st.DataObject, name: str) -> None:
        target = self.shop.docs / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            data.draw(st.sampled_from(self.present())).rename(target)

    @precondition(lambda self: self.present())
    @rule(data=st.data(), name=name_strategy)
    def copy(self, data: st.DataObject, name: str) -> None:
        target = self.shop.docs / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(data.draw(st.sampled_from(self.present())), target)

    @precondition(lambda self: len(self.readable()) > 1)
    @rule(data=st.data(), by_rename=st.booleans())
    def swap(self, data: st.DataObject, by_rename: bool) -> None:
        """Two files exchange their contents; by rename they keep sizes and times too."""
        one, two = data.draw(st.permutations(self.readable()))[:2]
        if by_rename:
            between = self.folder / "between"
            one.rename(between)
            two.rename(one)
            between.rename(two)
        else:
            first, second = one.read_bytes(), two.read_bytes()
            one.write_bytes(second)
            two.write_bytes(first)

    def readable(self) -> list[Path]:
        return [path for path in self.present() if path.read_bytes()[:1] not in (b"", b"\x00", b"%")]

    @precondition(lambda self: self.present())
    @rule(data=st.data(), age_s=st.sampled_from([-3_600.0, 60.0, 86_400.0 * 400]))
    def touch(self, data: st.DataObject, age_s: float) -> None:
        self.shop.age(data.draw(st.sampled_from(self.present())), age_s)

    @rule(pattern=st.sampled_from(["", "*.md\n", "sub/\n", "*\n!always.txt\n"]))
    def ignore(self, pattern: str) -> None:
        self.shop.write(".embedcliignore", pattern)

    # ---- what happens to runs

    @precondition(lambda self: self.present())
    @rule(data=st.data())
    def run_while_a_file_vanishes(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.present()))
        self.ingest(stop_signal=VanishingFile(path))
        path.unlink(missing_ok=True)

    @precondition(lambda self: self.readable())
    @rule(data=st.data(), more=st.sampled_from(PARAGRAPHS))
    def run_while_a_file_grows(self, data: st.DataObject, more: str) -> None:
        growing = GrowingFile(data.draw(st.sampled_from(self.readable())), "\n\n" + more)
        self.ingest(stop_signal=growing)
        growing()

    @rule(after=st.integers(1, 60))
    def run_that_dies(self, after: int) -> None:
        """The disk fails for ever after so many operations, as for a process that is killed there."""
        with contextlib.suppress(EmbedcliError):
            self.ingest(disk=FailAfter(after))

    @rule()
    def run(self) -> None:
        self.ingest()
        published, scratch = content(self.shop), self.from_scratch()
        assert published == scratch
        assert verify(self.opened()).damage == []

    @rule(max_tokens=st.sampled_from([32, 64]))
    def rebuild(self, max_tokens: int) -> None:
        if max_tokens != self.max_tokens and self.published():
            self.max_tokens = max_tokens
            self.ingest(rebuild=True, max_tokens=max_tokens)
            assert content(self.shop) == self.from_scratch()

    @rule(text=TEXTS)
    def add_root(self, text: str) -> None:
        self.second.mkdir(exist_ok=True)
        (self.second / "z.txt").write_text(text)
        self.ingest(self.shop.docs, self.second)
        self.two_roots = True
        assert content(self.shop) == self.from_scratch()

    @rule()
    def move(self) -> None:
        """The whole tree gets another name, and the index is told."""
        if not self.published():
            return
        before = self.shop.table().select(["chunk_id", "vector"])
        self.moves += 1
        old, new = self.shop.docs, self.folder / f"docs-{self.moves}"
        self.place(old.rename(new))
        keeper.moved(self.opened(), str(old), str(new), warn=lambda text: None)
        assert self.shop.table().select(["chunk_id", "vector"]).equals(before)

    @rule()
    def roll_back(self) -> None:
        if not self.published():
            return
        opened = self.opened()
        older = opened.current()
        if older is not None and older.parent is not None and opened.path(older.parent).exists():
            before = opened.read(older.parent)
            keeper.rollback(opened, warn=lambda text: None)
            self.max_tokens = before.settings.max_tokens
            (place,) = (root.path for root in before.roots if root.path != str(self.second))
            self.place(self.shop.docs.rename(place))  # a root that was moved since is back where it was
            self.two_roots = len(before.roots) == 2

    def published(self) -> bool:
        """Not for a precondition: how far a run that dies came is up to its threads, what is drawn must not be."""
        return (self.shop.index / "current").exists()

    def ingest(self, *sources: Path, **flags: Any) -> None:
        if not self.published():
            flags.setdefault("max_tokens", self.max_tokens)
        self.shop.ingest(*sources, max_gone_percent=100.0, checkpoint_every_s=0.0, **flags)

    def opened(self) -> Index:
        return Index(self.shop.index, disk=Disk())

    def from_scratch(self) -> Content:
        tree = tuple(
            (path.name, str(path.relative_to(self.shop.docs)), path.read_bytes()) for path in self.everything()
        )
        beside = (self.second / "z.txt").read_text() if self.two_roots else None
        key = (tree, beside, self.max_tokens)
        if key not in SCRATCH:
            other = Workshop(self.folder, index="scratch")
            other.docs = self.shop.docs
            sources = [other.docs, self.second] if self.two_roots else [other.docs]
            aside = self.shop.index.rename(self.folder / "aside")  # to another index it would be a part of the corpus
            other.ingest(*sources, max_tokens=self.max_tokens)
            aside.rename(self.shop.index)
            SCRATCH[key] = content(other)
            shutil.rmtree(other.index)
        return SCRATCH[key]  # type: ignore[no-any-return]

    def everything(self) -> list[Path]:
        files = (path for path in self.shop.docs.rglob("*") if path.is_file())
        return sorted(path for path in files if not path.is_relative_to(self.shop.index))

    @invariant()
    def readers_see_whole_generations_only(self) -> None:
        if not hasattr(self, "shop") or not self.published():
            return
        rows = self.shop.table().select(["chunk_id", "doc_id", "chunk_index", "chunk_count"]).to_pylist()
        assert len({row["chunk_id"] for row in rows}) == len(rows)
        for row in rows:
            assert row["chunk_index"] < row["chunk_count"]


def content(shop: Workshop) -> Content:
    """Everything that does not depend on where the tree lies or on earlier nights."""
    names = ("chunk_id", "doc_id", "uri", "modified_at", "changed_in", "vector")
    rows = [
        (*(row[name] for name in row if name not in names), tuple(round(float(x), 5) for x in row["vector"]))
        for row in shop.rows()
    ]
    table = pq.read_table(shop.index / "current/documents.parquet").to_pylist()
    return rows, {row["path"]: (row["status"], row["reason"]) for row in table}


Nights.TestCase.settings = settings(
    max_examples=200 if LONG else 12,
    stateful_step_count=40 if LONG else 14,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
TestNights = Nights.TestCase
