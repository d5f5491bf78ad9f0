"""The promises of the walk: one order, nothing doubled, nothing opened, and nothing lost without a word."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcli.errors import InputError, UsageError
from embedcli.records import Root, Source, Stat, digest
from embedcli.report import Largest
from embedcli.sources.filters import Filter
from embedcli.sources.walk import WalkProblems, root_of, walk
from tests.unprivileged import as_nobody

MIB = 1 << 20


def tree(folder: Path, *files: str) -> Root:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return root_of(str(folder))


def sources(
    root: Root, *, below: str = "", skip: Path | None = None, problems: WalkProblems | None = None
) -> list[Source]:
    problems = problems if problems is not None else WalkProblems()
    return list(walk(root, below=below, skip_folder=skip, max_text_bytes=MIB, problems=problems))


def paths(root: Root, *, below: str = "", skip: Path | None = None) -> list[str]:
    return [source.path for source in sources(root, below=below, skip=skip)]


names = st.text("ab.-é日 %F0", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))


@settings(max_examples=30, deadline=None)
@given(found=st.sets(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=12))
def test_the_order_is_strictly_that_of_the_path_components(
    tmp_path_factory: pytest.TempPathFactory, found: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("root")
    for file in sorted(found):
        if not any(
            (folder / file).exists() or parent.is_file() for parent in [folder / file, *(folder / file).parents]
        ):
            tree(folder, file)
    keys = [tuple(path.split("/")) for path in paths(root_of(str(folder)))]
    assert all(one < two for one, two in zip(keys, keys[1:], strict=False))
    on_disk = [path for path in folder.rglob("*") if path.is_file()]
    hidden = [path for path in on_disk if any(part.startswith(".") for part in path.relative_to(folder).parts)]
    assert len(keys) == len(on_disk) - len(hidden)


def test_a_folder_comes_where_its_name_sorts_among_the_files(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.txt", "a/z", "a/b/c", "a-b", "B")
    assert paths(root) == ["B", "a/b/c", "a/z", "a-b", "a.txt"]


def test_a_source_carries_its_stat_its_root_and_what_opens_it(tmp_path: Path) -> None:
    root = tree(tmp_path, "sub/a.txt")
    found = os.stat(tmp_path / "sub/a.txt")
    known = Stat(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    assert sources(root) == [Source(root.id, "sub/a.txt", str(tmp_path / "sub/a.txt"), known)]


def test_names_that_are_not_utf8_are_sources_too(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9/\xff.txt")).write_text("x")
    (found,) = sources(root_of(str(tmp_path)))
    assert found.path == "caf%E9/%FF.txt"
    assert Path(found.file).read_text() == "x"
    assert paths(root_of(str(tmp_path)), below="caf%E9") == ["caf%E9/%FF.txt"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    assert paths(tree(tmp_path, ".a", ".git/config", "b/.c", "b/d")) == ["b/d"]


def test_a_single_file_is_a_root_of_one_named_like_it(tmp_path: Path) -> None:
    tree(tmp_path, "sub/.notes.txt", "sub/other.txt")
    root = root_of(str(tmp_path / "sub/.notes.txt"))
    assert paths(root) == [".notes.txt"]
    assert paths(root, below="other.txt") == []


def test_below_limits_the_walk_to_a_folder_or_a_file(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/b/c", "a/b/d", "a/bb", "a/e", "b/b/c")
    assert paths(root, below="a/b") == ["a/b/c", "a/b/d"]
    assert paths(root, below="a/e") == ["a/e"]
    assert paths(root, below="a/gone") == []


def test_the_index_is_never_a_source_by_whatever_path_it_is_reached(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "a", "idx/vectors", "z/b")
    (tmp_path / "other").symlink_to(tmp_path / "data" / "idx")
    assert paths(root, skip=tmp_path / "other") == ["a", "z/b"]
    assert paths(root, skip=tmp_path / "not yet there") == ["a", "idx/vectors", "z/b"]


def test_another_index_below_a_root_is_never_a_source(tmp_path: Path) -> None:
    root = tree(tmp_path, "a", "team/idx/generations/000001/manifest.json", "team/idx/current.txt", "z")
    for name in ("staging", "keys", "changes", "state"):
        (tmp_path / "team/idx" / name).mkdir()
    assert paths(root) == ["a", "z"]


def test_a_folder_with_the_names_of_an_index_but_none_of_its_files_is_walked(tmp_path: Path) -> None:
    names = [f"plan/{name}/notes" for name in ("changes", "generations", "keys", "staging", "state")]
    assert paths(tree(tmp_path, *names)) == names


def test_links_to_files_are_read_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    root = tree(tmp_path, "sub/a.txt")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "sub/up").symlink_to("..")
    (tmp_path / "double").symlink_to("sub")
    (tmp_path / "link.txt").symlink_to("sub/a.txt")
    found = {source.path: source for source in sources(root)}
    assert sorted(found) == ["link.txt", "sub/a.txt"]
    assert found["link.txt"].stat == found["sub/a.txt"].stat


def test_what_is_no_file_or_leads_nowhere_says_so_and_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        found = {source.path: source.problem for source in sources(root_of(str(tmp_path)))}
    assert found == {
        "broken": "broken_link",
        "loop": "broken_link",
        "null": "not_a_file",
        "pipe": "not_a_file",
        "socket": "not_a_file",
    }


def test_an_ignore_file_that_is_a_pipe_stops_nobody(tmp_path: Path) -> None:
    root = tree(tmp_path, "a")
    os.mkfifo(tmp_path / ".embedcliignore")
    assert paths(root) == ["a"]


def test_too_large_is_said_of_text_and_never_of_a_pdf_or_slides(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.txt", "b.PDF", "c.txt", "d.pptx")
    for name, size in (("a.txt", MIB + 1), ("b.PDF", MIB + 1), ("c.txt", MIB), ("d.pptx", MIB + 1)):
        os.truncate(tmp_path / name, size)
    assert [source.problem for source in sources(root)] == ["too_large", None, None, None]


def test_a_folder_that_cannot_be_listed_is_a_source_with_a_problem_and_the_rest_is_walked(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/x", "locked/y", "unreadable rules/.embedcliignore", "unreadable rules/z", "w")
    (tmp_path / "unreadable rules/.embedcliignore").chmod(0)
    (tmp_path / "locked").chmod(0)

    def look() -> None:
        problems = WalkProblems()
        found = [(source.path, source.problem) for source in sources(root, problems=problems)]
        assert found == [("a/x", None), ("locked", "permission"), ("unreadable rules", "permission"), ("w", None)]
        assert problems.unlisted == {"locked": "permission", "unreadable rules": "permission"}

    as_nobody(tmp_path, look)
    (tmp_path / "locked").chmod(0o755)


def test_a_folder_that_shows_names_only_is_unlisted_and_a_link_into_it_a_permission(tmp_path: Path) -> None:
    root = tree(tmp_path, "names only/y")
    (tmp_path / "link").symlink_to("names only/y")
    (tmp_path / "names only").chmod(0o444)

    def look() -> None:
        # its ignore file cannot be looked for either: nothing is known of what the user wants left out
        problems = WalkProblems()
        found = sources(root, problems=problems)
        assert [(source.path, source.problem) for source in found] == [
            ("link", "permission"),
            ("names only", "permission"),
        ]
        assert problems.unlisted == {"names only": "permission"}

    as_nobody(tmp_path, look)
    (tmp_path / "names only").chmod(0o755)


def test_a_root_that_vanished_is_unlisted_and_not_empty(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "a")
    shutil.rmtree(tmp_path / "data")
    problems = WalkProblems()
    assert sources(root, problems=problems) == []
    assert problems.unlisted == {"": "vanished"}


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs a mount point that is always there")
def test_a_mount_point_is_named_at_the_root_and_below_it() -> None:
    problems = WalkProblems()
    next(walk(root_of("/proc"), below="version", skip_folder=None, max_text_bytes=MIB, problems=problems))
    assert problems.mounts == [""]
    problems = WalkProblems()
    next(walk(root_of("/"), below="proc/version", skip_folder=None, max_text_bytes=MIB, problems=problems))
    assert problems.mounts == ["proc"]


def test_include_selects_files_and_exclude_wins(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.pdf", "b.txt", "docs/c.pdf", "docs/d.txt", "drafts/e.pdf")
    assert paths(replace(root, include=("*.pdf",))) == ["a.pdf", "docs/c.pdf", "drafts/e.pdf"]
    assert paths(replace(root, include=("*.pdf",), exclude=("drafts/",))) == ["a.pdf", "docs/c.pdf"]
    assert paths(replace(root, include=("docs/",))) == ["docs/c.pdf", "docs/d.txt"]
    assert paths(replace(root, include=("/*.txt",))) == ["b.txt"]
    assert paths(replace(root, exclude=("*.pdf", "!docs/*.pdf"))) == ["b.txt", "docs/c.pdf", "docs/d.txt"]


def test_an_excluded_folder_is_not_entered(tmp_path: Path) -> None:
    root = replace(tree(tmp_path, "a", "gone/b"), exclude=("gone",))
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    problems = WalkProblems()
    assert [source.path for source in sources(root, problems=problems)] == ["a"]
    assert not problems.unlisted


def test_a_pattern_that_means_nothing_is_refused_in_a_flag_and_passed_over_in_a_file(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.txt", "b.log")
    with pytest.raises(UsageError, match="--exclude"):
        paths(replace(root, exclude=("!",)))
    (tmp_path / ".embedcliignore").write_text("!\n*.log\n")
    assert paths(root) == ["a.txt"]


def test_gitignore_counts_only_when_asked_for_and_ours_has_the_last_word(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.txt", "b.log", "c.log")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".embedcliignore").write_bytes(b"\xef\xbb\xbf!b.log\n")
    assert paths(root) == ["a.txt", "b.log", "c.log"]
    assert paths(replace(root, gitignore=True)) == ["a.txt", "b.log"]


PATTERNS = [
    *[
        "*",
        "!*/",
        "!*.md",
        "a/",
        "/a",
        "a/b",
        "!a",
        "b/",
        "!b/",
        "**/b",
        "a/**",
        "!a/**",
        "sub/*",
        "!sub/c.md",
        "*.md",
    ],
    *[
        "!c.md",
        "**/sub/",
        "/*",
        "!/sub",
        "sub/**/b",
        "[ab]",
        "?",
        "#x",
        "\\!a",
        "!sub/",
        "a/*/b",
        "!a/b/",
        "d.txt ",
    ],
    *["*.txt", "!d*", "a/**/", "**/", "[z-a]", "sub/**/b/"],
]
FOLDERS = ["", "a", "sub", "a/b", "b/sub"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the reference")
@settings(max_examples=25, deadline=None)
@given(
    rules=st.dictionaries(
        st.sampled_from(FOLDERS), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=5), min_size=1
    )
)
def test_ignore_files_mean_what_they_mean_to_git(
    tmp_path_factory: pytest.TempPathFactory, rules: dict[str, list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("root")
    inner = [f"{one}/{two}" for one in ("a", "b", "sub") for two in ("a", "b", "sub", "c.md", "d.txt")]
    every = [
        "c.md",
        "d.txt",
        *(f"{path}/{name}" for path in inner if "." not in path for name in ("a", "b", "c.md")),
    ]
    every += [path for path in inner if "." in path]
    root = tree(folder, *every)
    for name in (".gitignore", ".embedcliignore"):
        for below, lines in rules.items():
            (folder / below / name).write_text("\n".join(lines) + "\n")
    assert paths(root) == paths(replace(root, gitignore=True)) == _left_by_git(folder)
    known = Filter(root)
    assert [path for path in sorted(every, key=_components) if not known.leaves_out(path)] == paths(root)


def test_what_lies_below_a_folder_is_not_the_folder(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/x", "b/x/y", "b/z")
    assert paths(replace(root, exclude=("*", "!a/**"))) == []
    assert paths(replace(root, exclude=("b/**/",))) == ["a/x", "b/z"]


def _components(path: str) -> list[str]:
    return path.split("/")


def _left_by_git(folder: Path) -> list[str]:
    subprocess.run(["git", "init", "-q", folder], check=True)
    command = ["git", "-C", folder, "-c", "core.excludesFile=", "ls-files", "-o", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return sorted((path for path in listed if "/." not in f"/{path}"), key=_components)


def test_the_filter_tells_excluded_from_gone(tmp_path: Path) -> None:
    root = replace(tree(tmp_path, "kept/a.txt", "ignored/b.txt"), include=("*.txt",), exclude=("drafts/",))
    (tmp_path / ".embedcliignore").write_text("ignored/\n")
    (tmp_path / "kept/.embedcliignore").write_text("c*\n")
    known = Filter(root)
    left_out = [
        "a/b.pdf",
        "drafts/x.txt",
        "ignored/b.txt",
        "ignored/gone/x.txt",
        "kept/c.txt",
        "kept/.h/d.txt",
    ]
    gone = ["a/c.txt", "gone.txt", "kept/b.txt", "kept/gone/b.txt", "z/y/x.txt"]
    answers = {path: known.leaves_out(path) for path in sorted(left_out + gone, key=_components)}
    assert answers == {path: path in left_out for path in left_out + gone}
    assert {path: known.leaves_out(path) for path in left_out + gone} == answers


def test_a_root_keeps_the_path_it_was_given_and_its_id_is_of_that_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "data/a")
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    root = root_of("data/../link/")
    assert root == Root(id=digest(str(tmp_path / "link")), path=str(tmp_path / "link"))
    assert paths(root) == ["a"]


@pytest.mark.parametrize("path", ["gone", "a.txt/below a file", "", "broken"])
def test_a_root_that_does_not_exist_is_an_input_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    tree(tmp_path, "a.txt")
    (tmp_path / "broken").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="does not exist: `.*`") as raised:
        root_of(path)
    assert raised.value.exit_code == 15
    assert path in str(raised.value)
    assert raised.value.hint


def sized(path: str, size: int) -> Source:
    return Source("root", path, path, Stat(size, 0, 0, 0))


@pytest.mark.parametrize(("every", "named"), [(False, "new.txt 1.0 kB"), (True, "old.txt 2.0 kB, new.txt 1.0 kB")])
def test_known_files_are_named_among_the_largest_only_if_asked(every: bool, named: str) -> None:
    largest = Largest(every=every)
    largest.add(sized("old.txt", 2000), new=False)
    largest.add(sized("new.txt", 1000))
    assert largest.line() == f"2 files, 3.0 kB; largest: {named}"


def test_one_line_names_files_bytes_and_the_ten_largest() -> None:
    largest = Largest()
    for number in range(12):
        largest.add(sized(f"{number}.txt", number * 1000))
    largest.add(Source("root", "broken", "broken", None, "broken_link"))
    line = largest.line()
    assert line.startswith("13 files, 66.0 kB; largest: 11.txt 11.0 kB, 10.txt 10.0 kB, ")
    assert line.endswith("2.txt 2.0 kB")
    assert line.count(", ") == 10


def test_the_line_stays_one_line_and_needs_no_file() -> None:
    assert Largest().line() == "0 files, 0 B"
    largest = Largest()
    largest.add(sized("a\nb", 1_234_567))
    assert largest.line() == "1 file, 1.2 MB; largest: a\N{REPLACEMENT CHARACTER}b 1.2 MB"


def test_a_folder_of_many_files_is_held_as_names_only(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / f"{folder:02}").mkdir()
        for file in range(100):
            (tmp_path / f"{folder:02}" / f"{file:03}").touch()
    root = root_of(str(tmp_path))
    found = walk(root, skip_folder=None, max_text_bytes=MIB, problems=WalkProblems())
    tracemalloc.start()
    count = sum(1 for _ in found)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2000
    assert peak_bytes < 100_000


# ---- filters of flags, and what is left out by default


def filtered(root: Root, **filters: object) -> list[str]:
    return paths(replace(root, **filters))  # type: ignore[arg-type]


def test_patterns_of_flags_match_letters_of_either_case_and_ignore_files_do_not(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.pdf", "B.PDF", "c.txt", "Old/d.pdf")
    assert filtered(root, include=("*.Pdf",)) == ["B.PDF", "Old/d.pdf", "a.pdf"]
    assert filtered(root, exclude=("old/", "*.TXT")) == ["B.PDF", "a.pdf"]
    (tmp_path / ".embedcliignore").write_text("*.PDF\n")
    assert paths(root) == ["Old/d.pdf", "a.pdf", "c.txt"]


def test_office_lock_files_and_folders_of_programs_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "offer.docx", "~$offer.docx", ".~lock.sheet.ods#", "web/node_modules/x/readme.md", "web/index.md",
        "tool/__pycache__/a.txt", ".venv/b.txt",
    )  # fmt: skip
    assert paths(root) == ["offer.docx", "web/index.md"]
    every = filtered(root, default_excludes=False)
    assert every == [
        "offer.docx",
        "tool/__pycache__/a.txt",
        "web/index.md",
        "web/node_modules/x/readme.md",
        "~$offer.docx",
    ]


def test_patterns_that_match_nothing_are_named(tmp_path: Path) -> None:
    root = replace(tree(tmp_path, "a.pdf", "sub/b.md"), include=("*.pdf", "*.docx"), exclude=("sub/", "drafts/"))
    problems = WalkProblems()
    assert [s.path for s in walk(root, skip_folder=None, max_text_bytes=MIB, problems=problems)] == ["a.pdf"]
    assert problems.unmatched == ["*.docx", "drafts/"]
    partial = WalkProblems()
    list(walk(root, below="sub", skip_folder=None, max_text_bytes=MIB, problems=partial))
    assert partial.unmatched == [], "a part of a root says nothing of the rest"
