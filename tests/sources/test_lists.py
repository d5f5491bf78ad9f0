"""Lists of files: `find -print0 | embedcli ingest --files-from - -0`, and what a list leaves alone."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from embedcli.config import Options
from embedcli.errors import InputError, UsageError
from embedcli.filelist import FileList, read_list
from embedcli.sources.lists import settle_sources
from tests.cli.test_main import QUICK, QUIET
from tests.workshop import Workshop, words


def listed(*names: Path | str) -> FileList:
    return FileList("\n".join(map(str, names)).encode(), b"\n", os.getcwd())


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = command.replace("embedcli", " ".join(QUICK))
    return subprocess.run(["bash", "-c", command], cwd=folder, env=QUIET, capture_output=True, text=True, timeout=120)


def test_find_print0_names_the_files_of_a_run_whatever_is_in_their_names(shop: Workshop, tmp_path: Path) -> None:
    for name in ("plain.txt", "sub/two words.txt", "sub/new\nline.txt", "sub/left.md"):
        shop.write(name, words(30, len(name)))
    made = shell("find docs -name '*.txt' -print0 | embedcli ingest --files-from - -0 --index index --dim 16", tmp_path)
    assert made.returncode == 0, made.stderr
    assert set(shop.documents()) == {"plain.txt", "sub/two words.txt", "sub/new\nline.txt"}


def test_a_list_in_a_file_has_a_name_a_line_below_the_folder_of_the_run(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", words(30))
    shop.write("b.txt", words(30, 1))
    (tmp_path / "list").write_bytes(b"docs/a.txt\r\n\n./docs/../docs/b.txt\n")
    made = shell("embedcli ingest --files-from list --index index --dim 16", tmp_path)
    assert (made.returncode, set(shop.documents())) == (0, {"a.txt", "b.txt"}), made.stderr


def test_nothing_is_gone_by_a_list_and_the_next_plain_run_sees_what_is(shop: Workshop) -> None:
    files = [shop.write(f"{name}.txt", words(30, number)) for number, name in enumerate("abcd")]
    assert shop.ingest(listed=listed(*files[:3])).complete
    files[1].unlink()
    summary = shop.ingest(listed=listed(files[3]))
    assert (summary.sources["new"], summary.sources["gone"], summary.complete) == (1, 0, True)
    assert set(shop.documents()) == {"a.txt", "b.txt", "c.txt", "d.txt"}
    assert shop.ingest().sources["gone"] == 1
    assert set(shop.documents()) == {"a.txt", "c.txt", "d.txt"}


def test_a_list_costs_only_the_files_in_it(shop: Workshop) -> None:
    files = [shop.write(f"{name}.txt", words(30, number)) for number, name in enumerate("abc")]
    shop.ingest(listed=listed(*files))
    shop.write("a.txt", words(30, 9))
    shop.write("b.txt", words(30, 10))
    assert shop.ingest(listed=listed(files[0])).sources["changed"] == 1
    assert shop.ingest(listed=listed(files[0])).idle
    assert shop.ingest().sources["changed"] == 1


def test_files_of_a_known_root_stay_its_own_and_its_filters_count(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", words(30))
    shop.ingest(shop.docs, exclude=("*.log",))
    shop.write("sub/b.txt", words(30, 1))
    shop.write("c.log", words(30, 2))
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text(words(30, 3))
    summary = shop.ingest(listed=listed(*shop.docs.rglob("*"), elsewhere))
    assert summary.sources["new"] == 2
    assert any("1 names of the list are left out by the filters" in line for line in shop.report.said)
    assert {row["uri"] for row in shop.rows()} == {*map(str, shop.docs.rglob("*.txt")), str(elsewhere)}
    assert shop.ingest().idle


def test_a_name_that_is_not_there_is_news_and_a_folder_is_left_to_the_files_in_it(shop: Workshop) -> None:
    file = shop.write("a.txt", words(30))
    summary = shop.ingest(listed=listed(shop.docs, file, shop.docs / "typo.txt"))
    assert (summary.exit_code, summary.failures, set(shop.documents())) == (3, {"vanished": 1}, {"a.txt", "typo.txt"})
    assert (shop.ingest().exit_code, set(shop.documents())) == (0, {"a.txt"})


@pytest.mark.parametrize("nothing", [FileList(b"", b"\n", "/"), FileList(b"\n\r\n", b"\n", "/")])
def test_an_empty_list_is_an_error_and_changes_nothing(shop: Workshop, nothing: FileList) -> None:
    """The command that makes the list may have failed: that nobody notices would be worse than a run in vain."""
    with pytest.raises(InputError, match="the list of files is empty") as caught:
        shop.ingest(listed=nothing)
    assert caught.value.exit_code == 15 and not shop.index.exists()
    shop.write("a.txt", words(30))
    shop.ingest(shop.docs)
    before = shop.rows()
    with pytest.raises(InputError, match="nothing was changed"):
        shop.ingest(listed=nothing)
    assert shop.rows() == before


def test_a_folder_in_a_list_that_names_nothing_in_it_is_told(shop: Workshop, tmp_path: Path) -> None:
    file = shop.write("a.txt", words(30))
    shop.write("full/deep/b.txt", words(30, 1))
    (shop.docs / "void").mkdir()
    names = [shop.docs, file, shop.docs / "full", shop.docs / "full/deep", shop.docs / "void"]
    shop.ingest(listed=listed(*names))
    told = [line for line in shop.report.said if "nothing in it" in line]
    assert [line.split("`")[1] for line in told] == [str(shop.docs / "full/deep")]
    shop.ingest(shop.docs)
    shop.ingest(listed=listed(*names))  # now they belong to a root
    told = [line for line in shop.report.said if "nothing in it" in line]
    assert [line.split("`")[1] for line in told] == [str(shop.docs / "full/deep")]


def test_find_without_a_type_names_folders_and_is_told_nothing(shop: Workshop) -> None:
    shop.write("sub/deep/a.txt", words(30))
    for _ in range(2):
        shop.ingest(listed=listed(shop.docs, *sorted(shop.docs.rglob("*"))))
        assert not [line for line in shop.report.said if "nothing in it" in line]


def test_files_of_the_index_are_never_sources(shop: Workshop) -> None:
    file = shop.write("a.txt", words(30))
    shop.ingest(listed=listed(file))
    summary = shop.ingest(listed=listed(*shop.index.rglob("*.json"), file))
    assert summary.idle and any("names of the list are in the index itself" in line for line in shop.report.said)


def test_what_contradicts_a_list_is_refused(shop: Workshop, tmp_path: Path) -> None:
    file = shop.write("a.txt", words(30))
    with pytest.raises(UsageError, match="a SOURCE"):
        shop.ingest(shop.docs, listed=listed(file))
    with pytest.raises(UsageError, match="filters are for folders"):
        shop.ingest(listed=listed(file), include=("*.txt",))
    (tmp_path / "list").write_bytes(b"a\0b\0")
    with pytest.raises(InputError, match="end in NUL"):
        read_list(str(tmp_path / "list"), nul=False)
    with pytest.raises(InputError, match="cannot be read"):
        read_list(str(tmp_path / "none"), nul=True)


def test_a_list_of_fifty_thousand_names_takes_little_more_than_its_bytes(tmp_path: Path) -> None:
    data = "".join(f"{tmp_path}/folder-{n % 300}/file-{n}.txt\n" for n in range(50_000)).encode()
    tracemalloc.start()
    scopes = settle_sources(Options(tmp_path / "index", listed=FileList(data, b"\n", "/")), (), everything=False)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (scope,) = scopes.scopes
    assert scope.listed is not None and len(scope.listed) == 50_000 and scope.root.path == str(tmp_path)
    assert held < len(data) / 2
    assert scope.listed.nbytes < len(data) + 4 * 50_000


def test_the_same_list_twice_is_unchanged(shop: Workshop) -> None:
    files = [shop.write(f"sub{n % 3}/{n}.txt", words(30, n)) for n in range(9)]
    shop.ingest(listed=listed(*files))
    before = shop.embedded
    assert shop.ingest(listed=listed(*reversed(files), *files)).idle and shop.embedded == before
