"""Whatever is done to a tree, and however often its runs are killed, the index equals the one made of it from scratch.

Random sequences of edits, renames, swaps, kills, runs, rollbacks, rebuilds, moves of the whole tree, and a second root.
What an index from scratch cannot know, the rows of the last good version of a file that is unreadable now, the model
remembers. EMBEDCLI_TESTS_LONG=1 tries many more.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from embedcli.errors import EmbedcliError
from embedcli.index.generations import Index
from embedcli.records import digest
from embedcli.sources.walk import root_of
from embedcli.vault.disk import Disk
from embedcli.verbs.edits import moved, rollback
from embedcli.verbs.verify import verify
from tests.faults import FailAfter, GrowingFile, VanishingFile
from tests.workshop import Workshop, words

LONG = os.environ.get("EMBEDCLI_TESTS_LONG") == "1"
NAMES = ["a.txt", "b.md", "sub/c.txt", "sub/d.txt", "sub/deep/e.txt", "é %25.txt", "-f.txt"]
PARAGRAPHS = [words(25, seed=seed) for seed in range(5)]
TEXTS = st.lists(st.sampled_from(PARAGRAPHS), min_size=1, max_size=4).map("\n\n".join)
BROKEN = {b"\x00\x01\x02\xff" * 40: "not_text", b"": "empty", b"%PDF-1.7 torn": "damaged"}
EDITS = [
    "write", "write", "copy", "rename", "swap", "delete", "touch", "make_unreadable", "make_stale", "make_stale",
    "ignore",
]  # fmt: skip
FATES = [
    "ends", "ends", "ends", "is_killed", "is_killed", "meets_a_disk_that_dies", "meets_a_file_that_vanishes",
    "meets_a_file_that_grows",
]  # fmt: skip
SCRATCH: dict[Any, Any] = {}
"""What an index made from scratch of a tree holds, by the tree."""

Status = tuple[str, str | None]
Content = tuple[list[tuple[Any, ...]], dict[str, Status]]


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
        self.versions: dict[str, bytes] = {}
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

    def readable(self) -> list[Path]:
        return [path for path in self.present() if path.read_bytes() not in BROKEN]

    def one_of(self, data: st.DataObject, paths: list[Path]) -> Path | None:
        return data.draw(st.sampled_from(paths)) if paths else None

    def room(self, data: st.DataObject) -> Path:
        """A name that is free by now."""
        path = self.shop.docs / data.draw(st.sampled_from(NAMES))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path

    def write(self, data: st.DataObject) -> None:
        self.shop.write(str(self.room(data)), data.draw(TEXTS))

    def make_unreadable(self, data: st.DataObject) -> None:
        """None is a link that leads nowhere, a trouble of the moment."""
        self.spoil(self.room(data), data.draw(st.sampled_from([*BROKEN, None])))

    def make_stale(self, data: st.DataObject) -> None:
        """What was good is not what is empty or no text now, but what cannot be read."""
        if path := self.one_of(data, self.readable()):
            path.unlink()
            self.spoil(path, data.draw(st.sampled_from([b"%PDF-1.7 torn", None])))

    def spoil(self, path: Path, broken: bytes | None) -> None:
        path.symlink_to("nowhere") if broken is None else self.shop.write(str(path), broken)

    def delete(self, data: st.DataObject) -> None:
        if path := self.one_of(data, self.present()):
            path.unlink()

    def rename(self, data: st.DataObject) -> None:
        if (path := self.one_of(data, self.present())) and (target := self.room(data)) != path and path.exists():
            path.rename(target)

    def copy(self, data: st.DataObject) -> None:
        if (path := self.one_of(data, self.present())) and (target := self.room(data)) != path and path.exists():
            shutil.copy2(path, target)

    def swap(self, data: st.DataObject) -> None:
        """Two files exchange their contents; by rename they keep sizes and times too."""
        if len(self.present()) < 2:
            return
        one, two = data.draw(st.permutations(self.present()))[:2]
        if data.draw(st.booleans()):
            between = self.folder / "between"
            one.rename(between)
            two.rename(one)
            between.rename(two)
        else:
            first, second = one.read_bytes(), two.read_bytes()
            one.write_bytes(second)
            two.write_bytes(first)

    def touch(self, data: st.DataObject) -> None:
        if path := self.one_of(data, self.present()):
            self.shop.age(path, data.draw(st.sampled_from([-3_600.0, 60.0, 86_400.0 * 400])))

    def ignore(self, data: st.DataObject) -> None:
        self.shop.write(".embedcliignore", data.draw(st.sampled_from(["", "", "*.md\n", "sub/\n", "*\n!always.txt\n"])))

    # ---- what happens to runs

    @rule(data=st.data(), edits=st.lists(st.sampled_from(EDITS), max_size=5), fate=st.sampled_from(FATES))
    def night(self, data: st.DataObject, edits: list[str], fate: str) -> None:
        for edit in edits:
            getattr(self, edit)(data)
        getattr(self, fate)(data)

    def ends(self, data: st.DataObject) -> None:
        expected = self.expected()
        self.ingest()
        assert content(self.shop) == expected
        assert verify(self.opened()).damage == []
        self.check_ids()

    def meets_a_file_that_vanishes(self, data: st.DataObject) -> None:
        if path := self.one_of(data, self.present()):
            self.ingest(stop_signal=VanishingFile(path))
            path.unlink(missing_ok=True)

    def meets_a_file_that_grows(self, data: st.DataObject) -> None:
        if path := self.one_of(data, self.readable()):
            growing = GrowingFile(path, "\n\n" + data.draw(st.sampled_from(PARAGRAPHS)))
            self.ingest(stop_signal=growing)
            growing()
            self.remember()  # the run may have read it, and the next edit may replace it

    def meets_a_disk_that_dies(self, data: st.DataObject) -> None:
        with contextlib.suppress(EmbedcliError):
            self.ingest(disk=FailAfter(data.draw(st.integers(1, 40))))

    def is_killed(self, data: st.DataObject) -> None:
        """By SIGKILL, in a process of its own, before an operation on the disk."""
        self.remember()
        order = {
            "sources": self.roots(), "index": str(self.shop.index), "log": str(self.folder / "log"),
            "flags": {"dim": 16, "max_tokens": self.max_tokens, "max_gone_percent": 100.0, "checkpoint_every_s": 0.0},
            "kill": [None, data.draw(st.integers(1, 40))], "max_tokens": self.max_tokens,
        }  # fmt: skip
        assert ask_driver(order) in (0, 3, -signal.SIGKILL)

    # ---- what its keeper does

    @rule(data=st.data(), verb=st.sampled_from(["rebuild", "add_root", "move", "roll_back"]))
    def keep(self, data: st.DataObject, verb: str) -> None:
        getattr(self, verb if self.published() else "ends")(data)

    def rebuild(self, data: st.DataObject) -> None:
        """Not while something is stale: its rows could not be made anew."""
        if not self.stale():
            self.max_tokens = 96 - self.max_tokens
            self.ingest(rebuild=True, max_tokens=self.max_tokens)
            assert content(self.shop) == self.expected()

    def add_root(self, data: st.DataObject) -> None:
        self.second.mkdir(exist_ok=True)
        (self.second / "z.txt").write_text(data.draw(TEXTS))
        self.two_roots = True
        expected = self.expected()
        self.ingest(self.shop.docs, self.second)
        assert content(self.shop) == expected

    def move(self, data: st.DataObject) -> None:
        """The whole tree gets another name, and the index is told."""
        before = self.shop.table().select(["chunk_id", "vector"])
        self.moves += 1
        old, new = self.shop.docs, self.folder / f"docs-{self.moves}"
        self.place(old.rename(new))
        moved.moved(self.opened(), str(old), str(new), warn=lambda text: None)
        assert self.shop.table().select(["chunk_id", "vector"]).equals(before)

    def roll_back(self, data: st.DataObject) -> None:
        opened = self.opened()
        older = opened.current()
        if older is not None and older.parent is not None and opened.path(older.parent).exists():
            before = opened.read(older.parent)
            rollback.rollback(opened, warn=lambda text: None)
            self.max_tokens = before.settings.max_tokens
            (place,) = (root.path for root in before.roots if root.path != str(self.second))
            self.place(self.shop.docs.rename(place))  # a root that was moved since is back where it was
            self.two_roots = len(before.roots) == 2

    def published(self) -> bool:
        """Not for a precondition: how far a run that dies came is up to its threads, what is drawn must not be."""
        return (self.shop.index / "current").exists()

    def roots(self) -> list[str]:
        return [str(self.shop.docs), *([str(self.second)] if self.two_roots else [])]

    def ingest(self, *sources: Path, **flags: Any) -> None:
        self.remember()
        if not self.published():
            flags.setdefault("max_tokens", self.max_tokens)
        self.shop.ingest(*sources, max_gone_percent=100.0, checkpoint_every_s=0.0, **flags)

    def opened(self) -> Index:
        return Index(self.shop.index, disk=Disk())

    # ---- what has to be there

    def remember(self) -> None:
        """Every version of a file that a run may come to read."""
        for path in self.everything():
            data = path.read_bytes()
            self.versions[hashlib.sha256(data).hexdigest()] = data

    def stale(self) -> dict[str, str]:
        """The files that cannot be read now and have rows in the index: why, by name."""
        had = self.shop.documents() if self.published() else {}
        found = {}
        for name in NAMES:
            path = self.shop.docs / name
            reason = "broken_link" if path.is_symlink() else BROKEN.get(path.read_bytes()) if path.is_file() else None
            if reason in ("damaged", "broken_link") and name in had and had[name]["rows"]:
                found[name] = reason
        return found

    def expected(self) -> Content:
        """An index made from scratch, but that what is stale is there in its last good version."""
        stale = self.stale()
        had = self.shop.documents() if stale else {}
        rows, statuses = self.from_scratch({name: self.versions[had[name]["sha256"]] for name in stale})
        return rows, {name: ("stale", stale[name]) if name in stale else status for name, status in statuses.items()}

    def from_scratch(self, instead: dict[str, bytes]) -> Content:
        tree = {str(path.relative_to(self.shop.docs)): path.read_bytes() for path in self.everything()} | instead
        links = [name for name in NAMES if (self.shop.docs / name).is_symlink() and name not in instead]
        beside = (self.second / "z.txt").read_bytes() if self.two_roots else None
        key = (tuple(sorted(tree.items())), tuple(links), beside, self.max_tokens)
        if key not in SCRATCH:
            mirror = Workshop(self.folder / "mirror")
            for name, data in tree.items():
                mirror.write(name, data)
            for name in links:
                (mirror.docs / name).parent.mkdir(parents=True, exist_ok=True)
                (mirror.docs / name).symlink_to("nowhere")
            mirror.ingest(
                *([mirror.docs, self.second] if beside is not None else [mirror.docs]), max_tokens=self.max_tokens
            )
            SCRATCH[key] = content(mirror)
            shutil.rmtree(self.folder / "mirror")
        return SCRATCH[key]  # type: ignore[no-any-return]

    def everything(self) -> list[Path]:
        files = (path for path in self.shop.docs.rglob("*") if path.is_file())
        return sorted(path for path in files if not path.is_relative_to(self.shop.index))

    def check_ids(self) -> None:
        """They are made of the root, the path and the text, whatever the root is called by now."""
        current = self.opened().current()
        assert current is not None
        roots = {os.path.basename(root.path) == "second": root.id for root in current.roots}
        if not self.moves:
            assert roots[False] == root_of(str(self.shop.docs)).id
        seen: Counter[tuple[str, str]] = Counter()
        for row in self.shop.rows():
            root_id = roots[row["path"] == "z.txt"]
            assert row["doc_id"] == digest(root_id, row["path"])
            times = seen[row["path"], row["chunk_digest"]]
            assert row["chunk_id"] == digest(root_id, row["path"], row["chunk_digest"], times)
            seen[row["path"], row["chunk_digest"]] += 1

    @invariant()
    def readers_see_whole_generations_only(self) -> None:
        if not hasattr(self, "shop") or not self.published():
            return
        rows = self.shop.table().select(["chunk_id", "doc_id", "chunk_index", "chunk_count"]).to_pylist()
        assert len({row["chunk_id"] for row in rows}) == len(rows)
        for row in rows:
            assert row["chunk_index"] < row["chunk_count"]


@functools.cache
def driver() -> subprocess.Popen[str]:
    """The process that forks a run for each order; it ends with this one's pipe."""
    command = [sys.executable, str(Path(__file__).with_name("crash_driver.py")), "serve"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module", autouse=True)
def driver_ends() -> Iterator[None]:
    yield
    if driver.cache_info().currsize:
        with driver():  # closes its pipe and waits
            driver.cache_clear()


def ask_driver(order: dict[str, Any]) -> int:
    process = driver()
    assert process.stdin and process.stdout
    print(json.dumps(order), file=process.stdin, flush=True)
    return int(json.loads(process.stdout.readline())["status"])


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
    max_examples=300 if LONG else 15,
    stateful_step_count=40 if LONG else 12,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
TestNights = Nights.TestCase
