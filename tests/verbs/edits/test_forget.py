"""The promises of `forget`, with the real `ingest` over a fake engine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from embedcli.errors import InputError
from embedcli.index.manifest import manifest_bytes
from embedcli.records import printable
from embedcli.verbs.edits import forget
from embedcli.verbs.status import status
from tests.published import changes, damage, filled, index_of, silent, two_roots, vectors
from tests.workshop import Workshop, words


def test_forget_removes_a_root_and_its_rows(shop: Workshop) -> None:
    docs, other = two_roots(shop)
    gone = {row["chunk_id"] for row in shop.rows() if row["uri"].startswith(f"{other}/")}
    kept = {id_: vector for id_, vector in vectors(shop).items() if id_ not in gone}
    done = forget.forget(index_of(shop), str(other), warn=silent)
    assert (done.sources, done.chunks) == (2, len(gone))
    assert vectors(shop) == kept
    assert changes(shop, 2) == {"removed": gone}
    assert damage(shop) == []


def test_forgetting_a_container_forgets_what_lies_in_it(shop: Workshop) -> None:
    shop.write("more/tickets.jsonl", "".join(json.dumps({"id": i, "text": words(8, i)}) + "\n" for i in range(3)))
    shop.write("more/tickets.jsonl.old.txt", words(8, 7))
    shop.ingest(shop.docs)
    assert shop.table().num_rows == 4
    (shop.docs / "more/tickets.jsonl").unlink()
    forget.forget(index_of(shop), str(shop.docs / "more/tickets.jsonl"), warn=silent)
    assert shop.table().num_rows == 1 and shop.ingest().idle


def test_ingest_does_not_walk_a_forgotten_root(shop: Workshop) -> None:
    _, other = two_roots(shop)
    forget.forget(index_of(shop), str(other), warn=silent)
    shop.write("../more/z.txt", words(20, 7))
    summary = shop.ingest()
    assert (summary.generation, summary.sources["new"], summary.sources["unchanged"]) == (2, 0, 2)


def test_forgetting_the_last_root_leaves_an_empty_undamaged_generation(kept: Workshop) -> None:
    schema = kept.table().schema
    forget.forget(index_of(kept), str(kept.docs), warn=silent)
    assert kept.table().num_rows == 0
    assert kept.table().schema.equals(schema)
    assert damage(kept) == []
    assert status(index_of(kept)).roots == []


def test_a_run_without_sources_asks_for_a_root_after_the_last_was_forgotten(kept: Workshop) -> None:
    forget.forget(index_of(kept), str(kept.docs), warn=silent)
    with pytest.raises(InputError, match="has no roots any more") as caught:
        kept.ingest()
    assert f"--index {kept.index}" in caught.value.hint


def test_a_forgotten_root_is_ingested_again_without_embedding(shop: Workshop) -> None:
    filled(shop)
    before, had = vectors(shop), shop.embedded
    forget.forget(index_of(shop), str(shop.docs), warn=silent)
    shop.ingest(shop.docs)
    assert vectors(shop) == before
    assert shop.embedded == had


def test_forget_removes_what_lies_below_a_folder_of_a_root(shop: Workshop) -> None:
    filled(shop)
    shop.write("part-10/x.txt", words(50, 50))
    shop.ingest()
    gone = {row["chunk_id"] for row in shop.rows() if row["path"].startswith("part-1/")}
    said: list[str] = []
    done = forget.forget(index_of(shop), str(shop.docs / "part-1"), warn=said.append)
    assert (done.sources, done.chunks) == (3, len(gone))
    assert changes(shop, 3) == {"removed": gone} and damage(shop) == []
    assert {path.split("/")[0] for path in shop.documents()} == {"part-0", "part-10"}
    assert [line for line in said if "is still there" in line and "printf '\\n%s\\n' /part-1 >> " in line]
    had = shop.embedded
    assert (shop.ingest().sources["new"], shop.embedded) == (3, had), "it is still there, and known vectors are used"
    forget.forget(index_of(shop), str(shop.docs / "part-1"), warn=silent)
    assert shop.ingest(shop.docs, exclude=("/part-1",)).sources["new"] == 0


def test_forget_removes_a_single_source(shop: Workshop) -> None:
    filled(shop)
    file = shop.docs / "part-0/file-0.txt"
    file.unlink()
    assert forget.forget(index_of(shop), str(file), warn=silent).sources == 1
    assert shop.ingest().sources["gone"] == 0 and len(shop.documents()) == 5


def test_a_share_that_is_gone_for_good_is_forgotten_by_the_command_that_the_nightly_line_names(
    shop: Workshop, command: Callable[..., Any]
) -> None:
    filled(shop)
    manifest = shop.index / "current" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["roots"][0]["mounts"] = ["part-0"]  # as if it had been a mount point
    manifest.write_bytes(manifest_bytes(data))
    shutil.rmtree(shop.docs / "part-0")
    assert shop.ingest().sources["stale"] == 3
    nightly = command("ingest", "--index", shop.index)
    (line,) = (line for line in nightly.stderr.splitlines() if "was a mount point and is none now" in line)
    assert command(*shlex.split(line.split("`")[-2])[1:]).exit_code == 0
    summary = shop.ingest(strict=True)
    assert (summary.exit_code, summary.sources["stale"], summary.sources["unchanged"]) == (0, 0, 3)
    assert not any("mount point" in line for line in shop.report.said) and damage(shop) == []


def test_a_folder_of_a_selection_that_is_forgotten_is_not_selected_any_more(shop: Workshop) -> None:
    filled(shop)
    file = shop.write("single.txt", words(30, 9))
    shop.ingest(file)
    other = shop.write("../apart/one.txt", words(30, 10))
    shop.write("../apart/sub/two.txt", words(30, 11))
    shop.ingest(other)
    shop.ingest(other.parent / "sub")
    assert "sub/two.txt" in shop.documents()
    forget.forget(index_of(shop), str(other.parent / "sub"), warn=silent)
    shop.ingest()
    assert "sub/two.txt" not in shop.documents() and "one.txt" in shop.documents()


def test_forget_of_a_path_without_sources_names_the_roots(shop: Workshop) -> None:
    filled(shop)
    for path in (shop.docs / "part-9", shop.docs.parent, shop.docs / "part"):
        with pytest.raises(InputError) as caught:
            forget.forget(index_of(shop), str(path), warn=silent)
        assert str(shop.docs) in caught.value.hint


ODD = ["a[1].txt", "star*.txt", "why?.txt", "back\\slash.txt", "it's.txt", "a b ", "#c.txt", "sub/!d.txt", "p%FF.txt"]
LIKE_THEM = ["a1.txt", "starfish.txt", "whys.txt", "backslash.txt", "a b", "c.txt", "sub/d.txt", "!d.txt", "p.txt"]


def test_the_line_that_forget_says_leaves_out_that_source_and_nothing_else(shop: Workshop) -> None:
    """Whatever its name; in this root alone; and beside the patterns that the index remembers."""
    other = shop.docs.parent / "more"
    for number, name in enumerate([*ODD, *LIKE_THEM, "drafts/d.txt"]):
        shop.write(name, words(9, number))
        shop.write(f"../more/{name}", words(9, 100 + number))
    shop.write(".embedcliignore", "*.tmp")
    shop.ingest(shop.docs, other, exclude=("drafts/",))
    kept = {row["uri"] for row in shop.rows(["uri"])}
    said: list[str] = []
    for name in ODD:
        forget.forget(index_of(shop), str(shop.docs / name), warn=said.append)
    for line in said:
        assert "is still there, and the next run reads it again; " in line
        subprocess.run(["sh", "-c", line.partition("; `")[2].rpartition("` leaves it out")[0]], check=True)
    shop.ingest()
    left_out = {printable(os.fsencode(shop.docs / name)) for name in ODD}
    assert left_out < kept and {row["uri"] for row in shop.rows(["uri"])} == kept - left_out


def test_a_source_that_was_named_by_itself_is_not_said_to_be_read_again(shop: Workshop) -> None:
    for number in range(3):
        shop.write(f"{number}.txt", words(9, number))
    shop.ingest(*(shop.docs / f"{number}.txt" for number in range(3)))
    said: list[str] = []
    forget.forget(index_of(shop), str(shop.docs / "1.txt"), warn=said.append)
    assert not said and shop.ingest().idle and len(shop.documents()) == 2
