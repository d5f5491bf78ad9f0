"""The rules of roots: which one holds a source, what is remembered, what a wider one takes over."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import InputError, UsageError
from embedcli.filelist import FileList
from embedcli.index.generations import Index
from embedcli.records import from_printable, from_printable_path
from embedcli.vault.disk import Disk
from embedcli.verbs.edits import forget, moved
from tests.workshop import UNFINISHED, Workshop, stopped_half_way, words


def roots(shop: Workshop) -> list[str]:
    manifest = json.loads((shop.index / "current" / "manifest.json").read_text())
    return [root["path"] for root in manifest["roots"]]


def doubled(shop: Workshop) -> list[Any]:
    places = Counter((row["uri"], row["chunk_index"]) for row in shop.rows())
    return [place for place, count in places.items() if count > 1]


@pytest.fixture
def two(shop: Workshop, tmp_path: Path) -> Path:
    """`docs/sub` and another folder, six files each; returns the other one."""
    other = tmp_path / "other"
    other.mkdir()
    for number in range(6):
        shop.write(f"sub/{number}.txt", words(300, number))
        (other / f"{number}.txt").write_text(words(300, number + 50) if number else UNFINISHED)
    return other


def test_a_stopped_first_run_on_a_wrong_folder_is_not_remembered_by_one_on_the_right(shop: Workshop, two: Path) -> None:
    stopped_half_way(shop, two)
    first = shop.ingest(shop.docs)
    assert (roots(shop), first.complete) == ([str(shop.docs)], True)
    shop.ingest()
    assert {row["uri"].rsplit("/", 1)[0] for row in shop.rows()} == {str(shop.docs / "sub")}


def test_what_a_stopped_first_run_had_embedded_is_not_paid_twice(shop: Workshop, two: Path) -> None:
    stopped_half_way(shop, two)
    shop.ingest(shop.docs)
    before = shop.embedded
    summary = shop.ingest(two)
    assert summary.chunks["reused"] > 0
    assert shop.embedded - before < summary.chunks["embedded"] + summary.chunks["reused"]


def test_a_wider_root_doubles_no_document_while_the_index_is_incomplete(shop: Workshop, two: Path) -> None:
    stopped_half_way(shop, shop.docs / "sub", two)
    shop.ingest(shop.docs / "sub")
    (shop.docs / "sub" / "3.txt").unlink()
    assert shop.ingest(shop.docs / "sub").sources["gone"] == 1
    assert "3.txt" not in shop.documents()
    shop.ingest(shop.docs)
    assert not doubled(shop)
    shop.ingest()
    assert not doubled(shop)
    assert not any(path.endswith("3.txt") for path in shop.documents() if path.startswith("sub"))


@pytest.mark.parametrize("kind", ["hidden", "link"])
def test_a_root_that_the_wider_one_does_not_reach_stays_its_own(shop: Workshop, tmp_path: Path, kind: str) -> None:
    shop.write("seen.txt", words(100, 1))
    away = tmp_path / "away"
    away.mkdir()
    (away / "unseen.txt").write_text(words(100, 2))
    inner = shop.docs / (".notes" if kind == "hidden" else "notes")
    if kind == "hidden":
        away.rename(inner)
    else:
        inner.symlink_to(away)
    shop.ingest(inner)
    summary = shop.ingest(shop.docs)
    assert (summary.sources["new"], summary.sources["gone"]) == (1, 0)
    assert set(shop.documents()) == {"seen.txt", "unseen.txt"}
    assert set(roots(shop)) == {str(shop.docs), str(inner)}
    (inner / "later.txt").write_text(words(100, 3))
    assert shop.ingest(inner).sources["new"] == 1, "named again, it is seen again"


@pytest.fixture
def link(shop: Workshop, tmp_path: Path) -> Path:
    """Another path of the corpus, which has a file and a folder."""
    shop.write("1.txt", words(60, 1))
    shop.write("sub/2.txt", words(60, 2))
    link = tmp_path / "link"
    link.symlink_to(shop.docs)
    return link


@pytest.mark.parametrize("below", ["", "sub", "sub/2.txt"])
def test_a_root_under_another_name_is_the_one_that_is_known(shop: Workshop, link: Path, below: str) -> None:
    for first, then in ((shop.docs, link), (link, shop.docs)):
        shop.ingest(first)
        assert shop.ingest(then / below).sources["new"] == 0
        assert (roots(shop), doubled(shop), len(shop.documents())) == ([str(first)], [], 2)
        shutil.rmtree(shop.index)


@pytest.mark.parametrize("narrow_first", [False, True])
def test_a_root_named_twice_in_one_run_is_one(shop: Workshop, link: Path, tmp_path: Path, narrow_first: bool) -> None:
    file = tmp_path / "file.txt"
    file.symlink_to(shop.docs / "sub" / "2.txt")
    shop.ingest(*sorted([link, shop.docs / "sub", file], key=str, reverse=narrow_first))
    assert (roots(shop), len(shop.documents())) == ([str(link)], 2)


def test_a_link_is_found_among_the_roots_whatever_their_order(shop: Workshop, link: Path) -> None:
    shop.ingest(shop.docs / "sub")
    shop.ingest(shop.docs, exclude=("sub/",))
    assert shop.ingest(link).sources["new"] == 0
    assert sorted(roots(shop)) == [str(shop.docs), str(shop.docs / "sub")]


def test_a_root_that_another_has_by_a_link_is_refused_with_the_way_out(shop: Workshop, link: Path) -> None:
    sub = shop.docs / "sub"
    for named, first, then in ((link, link, shop.docs.parent), (sub, sub, link), (sub / "2.txt", sub, link)):
        shop.ingest(named)
        before = os.readlink(shop.index / "current")
        with pytest.raises(UsageError, match=f"the root `{first}` is also `.*`, by a link") as refused:
            shop.ingest(then)
        assert os.readlink(shop.index / "current") == before
        assert f"`embedcli forget {first} --index {shop.index}`" in str(refused.value.hint)
        forget.forget(Index(shop.index, disk=Disk()), str(first), warn=print)
        summary = shop.ingest(then)
        assert (roots(shop), doubled(shop), len(shop.documents())) == ([str(then)], [], 2)
        assert summary.chunks["reused"] > 0
        shutil.rmtree(shop.index)


def test_what_the_filters_leave_out_may_be_a_root_by_a_link_until_they_are_lifted(
    shop: Workshop, tmp_path: Path
) -> None:
    shop.write("1.txt", words(60, 1))
    shop.write("sub/2.txt", words(60, 2))
    shop.ingest(exclude=("sub/",))
    sub = tmp_path / "subs"
    sub.symlink_to(shop.docs / "sub")
    assert shop.ingest(sub).sources["new"] == 1
    with pytest.raises(UsageError, match=f"the root `{sub}` is also `{shop.docs / 'sub'}`"):
        shop.ingest(shop.docs, exclude=("",))


def test_a_link_that_leads_into_another_root_now_is_told(shop: Workshop, link: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "3.txt").write_text(words(60, 3))
    link.unlink()
    link.symlink_to(other)
    shop.ingest(shop.docs, link)
    link.unlink()
    link.symlink_to(shop.docs / "sub")
    with pytest.raises(UsageError, match=f"the root `{link}` is also `{shop.docs / 'sub'}`, by a link"):
        shop.ingest()
    assert len(shop.documents()) == 3


def test_a_root_does_not_move_into_another_by_a_link(shop: Workshop, link: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "3.txt").write_text(words(60, 3))
    shop.ingest(shop.docs, other)
    with pytest.raises(InputError, match="overlap"):
        moved.moved(Index(shop.index, disk=Disk()), str(other), str(link / "sub"), warn=print)


def test_what_is_now_where_a_moved_root_was_is_another_root(shop: Workshop, tmp_path: Path) -> None:
    shop.write("1.txt", words(60, 1))
    shop.ingest()
    ids = shop.ids()
    elsewhere = tmp_path / "elsewhere"
    shop.docs.rename(elsewhere)
    moved.moved(Index(shop.index, disk=Disk()), str(shop.docs), str(elsewhere), warn=print)
    for number in (1, 3):
        shop.write(f"{number}.txt", words(60, number))
    summary = shop.ingest(shop.docs)
    assert (summary.sources["new"], summary.sources["gone"]) == (2, 0)
    assert ids < shop.ids() and len(shop.rows()) == len(shop.ids())
    assert shop.ingest().sources["unchanged"] == 3
    forget.forget(Index(shop.index, disk=Disk()), str(elsewhere), warn=print)
    assert shop.ingest().sources["unchanged"] == 2


def test_what_the_filters_of_a_root_leave_out_is_a_root_of_its_own_when_it_is_named(shop: Workshop) -> None:
    shop.write("seen.txt", words(100, 1))
    shop.write("drafts/unseen.txt", words(100, 2))
    shop.ingest(exclude=("drafts/",))
    assert set(shop.documents()) == {"seen.txt"}
    assert shop.ingest(shop.docs / "drafts").sources["new"] == 1
    assert set(shop.documents()) == {"seen.txt", "unseen.txt"}
    assert shop.ingest().sources["unchanged"] == 2


def test_filters_of_a_rebuild_are_those_of_the_root_named(shop: Workshop, two: Path) -> None:
    shop.ingest(shop.docs)
    shop.ingest(two)
    shop.ingest(shop.docs, rebuild=True, exclude=("3.txt",))
    left = Counter(row["uri"] for row in shop.documents().values() if row["path"].endswith("3.txt"))
    uris = {row["uri"] for row in shop.rows()}
    assert str(two / "3.txt") in uris
    assert str(shop.docs / "sub" / "3.txt") not in uris, left


def test_filters_on_a_part_of_a_root_are_refused(shop: Workshop, two: Path) -> None:
    shop.ingest(shop.docs)
    with pytest.raises(Exception, match="filters are remembered for a whole root"):
        shop.ingest(shop.docs / "sub", exclude=("*.txt",))


def test_a_remembered_root_that_is_gone_names_the_verbs_that_help(shop: Workshop, two: Path) -> None:
    shop.ingest(shop.docs)
    shop.ingest(two)
    os.rename(two, two.with_name("moved"))
    with pytest.raises(InputError, match="a root of this index is not there") as caught:
        shop.ingest()
    assert f"embedcli moved {two} " in caught.value.hint and f"embedcli forget {two}" in caught.value.hint


# ---- files named one by one


def paths(shop: Workshop) -> set[str]:
    return {row["uri"].removeprefix(f"{shop.docs}/") for row in shop.documents().values()}


@pytest.fixture
def some(shop: Workshop) -> Workshop:
    """`docs` has four files, of which the shell's glob named two."""
    for number, name in enumerate(("a.txt", "b.txt", "notes.md", "sub/c.txt")):
        shop.write(name, words(60, number))
    shop.ingest(shop.docs / "a.txt", shop.docs / "b.txt")
    return shop


def test_files_named_one_by_one_belong_to_their_folder_and_nothing_else_there_is_a_source(some: Workshop) -> None:
    assert (roots(some), paths(some)) == ([str(some.docs)], {"a.txt", "b.txt"})
    assert some.ingest().sources["unchanged"] == 2


def test_a_named_file_that_vanished_is_gone_like_any_source(some: Workshop) -> None:
    (some.docs / "b.txt").unlink()
    assert some.ingest(some.docs / "a.txt").sources["gone"] == 1
    assert paths(some) == {"a.txt"}


def test_a_selection_grows_when_a_later_run_names_more(some: Workshop) -> None:
    summary = some.ingest(some.docs / "sub" / "c.txt")
    assert (summary.sources["new"], summary.sources["unchanged"], roots(some)) == (1, 2, [str(some.docs)])
    assert paths(some) == {"a.txt", "b.txt", "sub/c.txt"}


def test_a_folder_named_later_takes_the_selection_over_without_a_row_changing_its_id(some: Workshop) -> None:
    before, embedded = some.ids(), some.embedded
    summary = some.ingest(some.docs)
    assert (summary.sources["new"], summary.sources["unchanged"]) == (2, 2)
    assert before < some.ids() and paths(some) == {"a.txt", "b.txt", "notes.md", "sub/c.txt"}
    assert some.embedded > embedded
    (some.docs / "late.txt").write_text(words(20, 9))
    assert some.ingest().sources["new"] == 1, "the folder is whole from now on"


def test_a_folder_below_a_selection_becomes_a_whole_part_of_it(some: Workshop) -> None:
    some.ingest(some.docs / "sub" / "c.txt")
    before = some.ids()
    some.write("sub/d.txt", words(60, 7))
    summary = some.ingest(some.docs / "sub")
    assert (summary.sources["new"], summary.sources["unchanged"], roots(some)) == (1, 3, [str(some.docs)])
    assert before < some.ids() and not doubled(some)
    some.write("sub/e.txt", words(60, 8))
    assert some.ingest().sources["new"] == 1
    assert paths(some) == {"a.txt", "b.txt", "sub/c.txt", "sub/d.txt", "sub/e.txt"}


def test_a_wider_folder_takes_a_selection_over_without_embedding(some: Workshop) -> None:
    embedded = some.embedded
    some.ingest(some.docs.parent / "docs" / "..", exclude=("index/", "notes.md", "sub/"))
    assert not doubled(some) and some.embedded == embedded
    assert roots(some) == [str(some.docs.parent)]


def test_a_selection_is_known_by_way_of_a_link(some: Workshop, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(some.docs)
    summary = some.ingest(tmp_path / "elsewhere" / "a.txt", tmp_path / "elsewhere" / "notes.md")
    assert (summary.sources["new"], roots(some)) == (1, [str(some.docs)])
    assert not doubled(some)


def test_a_file_that_a_whole_root_holds_is_a_part_of_that_root(shop: Workshop) -> None:
    shop.write("a.txt", words(60, 1))
    shop.write("b.txt", words(60, 2))
    shop.ingest()
    shop.write("b.txt", words(60, 3))
    summary = shop.ingest(shop.docs / "a.txt")
    assert (summary.sources["unchanged"], summary.sources["changed"], roots(shop)) == (1, 0, [str(shop.docs)])


def test_files_of_several_folders_belong_to_the_folder_they_have_in_common(shop: Workshop) -> None:
    files = [shop.write(name, words(60, number)) for number, name in enumerate(("x/a.txt", "y/z/b.txt"))]
    shop.write("x/other.txt", words(60, 5))
    shop.ingest(*files)
    assert (roots(shop), paths(shop)) == ([str(shop.docs)], {"x/a.txt", "y/z/b.txt"})


def test_filters_are_refused_for_files_named_one_by_one(some: Workshop) -> None:
    with pytest.raises(UsageError, match="filters are for folders"):
        some.ingest(some.docs / "notes.md", exclude=("*.md",))


def test_a_selection_whose_every_file_is_gone_stops_the_run(some: Workshop) -> None:
    for name in ("a.txt", "b.txt"):
        (some.docs / name).unlink()
    with pytest.raises(InputError, match="all 2 known sources"):
        some.ingest()


@pytest.mark.parametrize("flag", ["include", "exclude"])
def test_a_list_in_one_pattern_is_refused_with_the_flag_repeated(shop: Workshop, flag: str) -> None:
    shop.write("a.txt", words(20, 1))
    with pytest.raises(UsageError, match="takes one pattern, not a list") as caught:
        shop.ingest(**{flag: ("*.pdf,*.md",)})
    assert f"`--{flag} '*.pdf' --{flag} '*.md'`" in caught.value.hint
    assert not shop.index.exists()


def test_a_comma_in_a_name_can_be_meant(shop: Workshop) -> None:
    shop.write("Miller, Ann.txt", words(20, 1))
    shop.write("1,5.txt", words(20, 2))
    shop.write("b.txt", words(20, 3))
    shop.ingest(exclude=("Miller, *", r"1\,5.txt", "nothing"))
    assert set(shop.documents()) == {"b.txt"}
    assert [line for line in shop.report.said if "matches nothing" in line] == [
        "warning: the pattern `nothing` of `--include` or `--exclude` matches nothing"
    ]


ODD_NAMES = (
    b"caf\xe9/50%41.txt",
    b"caf\xe9/%2F/\xff.txt",
    b"a%FF/%.txt",
    b"50%41/caf\xe9.txt",
    b"50%41/%2541/a%2F.txt",
)
"""In each a name that must be encoded, and one beside it or above it that looks as if it were."""


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Workshop, list[Path]]:
    """A root and files, both with names in which `%` or bytes that are not UTF-8 are."""
    shop = Workshop(tmp_path)
    shop.docs = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xfct%41"))
    return shop, [shop.write(os.fsdecode(name), words(30, number)) for number, name in enumerate(ODD_NAMES)]


def of_files(shop: Workshop) -> set[Path]:
    """The files of the index, each found by its path below its root and by its uri."""
    files = set()
    found = {
        root["id"]: root["path"] for root in json.loads((shop.index / "current/manifest.json").read_text())["roots"]
    }
    for path, row in shop.documents().items():
        assert row["status"] == "indexed", row
        by_path = Path(found[row["root"]], os.fsdecode(from_printable_path(path)))
        assert by_path == Path(os.fsdecode(from_printable(row["uri"])))
        files.add(by_path)
    return files


def test_a_file_has_one_name_however_it_is_named(odd: tuple[Workshop, list[Path]]) -> None:
    shop, files = odd
    shop.ingest()
    assert of_files(shop) == set(files)
    for named in (files, [file.parent for file in files]):
        assert shop.ingest(*named).idle
    listed = FileList(b"\0".join(map(os.fsencode, files)), b"\0", os.getcwd())
    assert shop.ingest(listed=listed).idle
    assert len(shop.documents()) == len(files)


@pytest.mark.parametrize("by_list", [False, True])
def test_files_with_odd_names_that_are_named_one_by_one_are_found_again(
    odd: tuple[Workshop, list[Path]], by_list: bool
) -> None:
    shop, files = odd
    if by_list:
        listed = FileList(b"\0".join(map(os.fsencode, files)), b"\0", os.getcwd())
        assert shop.ingest(listed=listed).sources["new"] == len(files)
    else:
        assert shop.ingest(*files).sources["new"] == len(files)
    assert of_files(shop) == set(files)
    assert shop.ingest().idle and len(shop.documents()) == len(files)
    files[0].unlink()
    assert shop.ingest(max_gone_percent=100.0).sources["gone"] == 1
    assert of_files(shop) == set(files[1:])


def test_an_odd_name_is_excluded_by_its_path_forgotten_and_moved(odd: tuple[Workshop, list[Path]]) -> None:
    shop, files = odd
    shop.ingest()
    (excluded,) = (path for path, row in shop.documents().items() if row["uri"].endswith("/%FF.txt"))
    forget.forget(Index(shop.index, disk=Disk()), str(files[0]), warn=lambda _: None)
    assert of_files(shop) == set(files[1:])
    summary = shop.ingest(exclude=(f"/{excluded}",))
    assert (summary.sources["new"], summary.sources["excluded"]) == (1, 1)
    assert of_files(shop) == {file for file in files if file != files[1]}
    folder = files[0].parent
    new = folder.rename(folder.with_name(os.fsdecode(b"%41\xff")))
    moved.moved(Index(shop.index, disk=Disk()), str(folder), str(new), warn=lambda _: None)
    assert new / "50%41.txt" in of_files(shop)
    summary = shop.ingest()
    assert (summary.sources["new"], summary.sources["gone"]) == (1, 0), "the pattern is of the old path"
    assert of_files(shop) == {*files[2:], new / "50%41.txt", new / os.fsdecode(b"%2F/\xff.txt")}
