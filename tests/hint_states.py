"""States of an index in which the program gives hints, and the names of places in commands.

In: a Workshop. Out: files as they are when something has gone wrong. Not here: the hints (test_hints.py).
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from embedcli.verbs.edits.forget import forget
from tests.published import index_of, silent, spoil
from tests.test_rights import opened_up
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, words

State = Callable[[Workshop], object]
HERE = Path(__file__).resolve().parent


def places(shop: Workshop) -> dict[str, str]:
    quoted = {name: shlex.quote(str(path)) for name, path in (("docs", shop.docs), ("index", shop.index))}
    parent = shlex.quote(str(shop.index.parent))
    other = shlex.quote(str(shop.index.parent / "another index"))
    alone = shlex.quote(str(shop.index.parent / "alone.txt"))
    part = shlex.quote(str(shop.docs / "part"))
    part_all = shlex.quote(f"{shop.docs / 'part'}=100")
    moved = shlex.quote(str(shop.index.parent / "more/docs"))
    program = f"{sys.executable} {HERE / 'quick_embedcli.py'}"
    plain = {
        "index_": str(shop.index),
        "docs_": str(shop.docs),
        "parent_": str(shop.index.parent),
        "samples": str(HERE.parent / "samples"),
        "python": sys.executable,
        "on_a_terminal": f"{sys.executable} {HERE / 'on_a_terminal.py'}",
    }
    return {
        **quoted,
        **plain,
        "parent": parent,
        "other": other,
        "moved": moved,
        "alone": alone,
        "part": part,
        "part_all": part_all,
        "program": program,
    }


def shell(line: str, shop: Workshop) -> None:
    subprocess.run(line.format(**places(shop)), shell=True, check=True, capture_output=True)


def nothing(shop: Workshop) -> None:
    """Documents, and no index yet."""
    for number in range(3):
        shop.write(f"part/{number}.txt", words(90, number))


def indexed(shop: Workshop) -> None:
    nothing(shop)
    shop.ingest()


def twice(shop: Workshop) -> None:
    """Two generations."""
    indexed(shop)
    shop.write("new.txt", words(60, 5))
    shop.ingest()


def beside(text: str) -> State:
    """An index with a settings file beside it."""

    def state(shop: Workshop) -> None:
        indexed(shop)
        (shop.index.parent / "embedcli.toml").write_text(text)

    return state


def after(state: State, *lines: str) -> State:
    """A state and what happens then, in the shell."""

    def later(shop: Workshop) -> None:
        state(shop)
        for line in lines:
            shell(line, shop)

    return later


def unreadable(shop: Workshop) -> None:
    shop.write("a.pdf", b"%PDF-1.7 nothing")


def named_one_by_one(shop: Workshop) -> None:
    nothing(shop)
    shop.ingest(shop.docs / "part/0.txt")


def two_names(shop: Workshop) -> None:
    """A root that a link leads into, after the link was a folder."""
    indexed(shop)
    other = shop.write("../other/x.txt", words(60, 8)).parent
    shop.ingest(other)
    shutil.rmtree(other)
    other.symlink_to(shop.docs)


def killed_first_run(shop: Workshop) -> None:
    nothing(shop)
    slow = shop.write("slow.txt", UNFINISHED)
    stopped_half_way(shop)
    slow.write_text("It is quick now.\n")


def with_damage(shop: Workshop) -> None:
    indexed(shop)
    (shard,) = shop.index.glob("current/vectors/*.parquet")
    spoil(shard, at=2000)


def with_a_damaged_list(shop: Workshop) -> None:
    """What the last change list says of itself can be read, and not its rows."""
    twice(shop)
    path = shop.index / "changes/000002.parquet"
    spoil(path, at=8)


def with_records(shop: Workshop) -> None:
    """A file of twelve records beside others."""
    nothing(shop)
    shop.write("t.jsonl", "".join(json.dumps({"id": n, "text": f"ticket {n}"}) + "\n" for n in range(12)))
    shop.ingest()


def forgotten(shop: Workshop) -> None:
    indexed(shop)
    forget(index_of(shop), str(shop.docs), warn=silent)


def three_generations(shop: Workshop) -> None:
    indexed(shop)
    for number in (7, 8):
        shop.write(f"new-{number}.txt", words(60, number))
        shop.ingest(keep_generations=3)


def ten_gone(shop: Workshop) -> None:
    for number in range(12):
        shop.write(f"part/{number}.txt", words(30, number))
    shop.write("a.txt", words(30, 50))
    shop.ingest()
    for number in range(11):
        (shop.docs / f"part/{number}.txt").unlink()


def ten_without_text(shop: Workshop) -> None:
    ten_gone(shop)
    (shop.docs / "a.txt").rename(shop.index.parent / "text")
    for number in range(12):
        shop.write(f"part/{number}.txt", "")


def ten_gone_below_a_quote(shop: Workshop) -> None:
    ten_gone(shop)
    shop.docs = shop.docs.rename(shop.docs.with_name("it's"))
    shop.index.rename(shop.index.with_name("old"))
    for number in range(12):
        shop.write(f"part/{number}.txt", words(30, number))
    shop.ingest()
    for number in range(11):
        (shop.docs / f"part/{number}.txt").unlink()


def of_a_newer_version(shop: Workshop) -> None:
    twice(shop)
    manifest = shop.index / "current/manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))


def more_open(shop: Workshop) -> None:
    indexed(shop)
    opened_up(shop.index.parent)
    for line in ("chmod -R go-rwx {docs}", "chmod -R go+rX {index}"):
        shell(line, shop)


def in_another_root(shop: Workshop) -> None:
    """A root that was moved into another one."""
    indexed(shop)
    more = shop.write("../more/x.txt", words(60, 8)).parent
    shop.ingest(more)
    shop.docs.rename(more / "docs")
