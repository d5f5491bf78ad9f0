"""A bucket is walked as a folder with the same files is: the same sources, in the same order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedcli.errors import InputError
from embedcli.records import RecordRule, Root, Source
from embedcli.sources.buckets.walk import walk_bucket
from embedcli.sources.walk import WalkProblems, root_of, walk
from tests.buckets import S3Bucket, bucket, error_body, writer  # noqa: F401

MIB = 1 << 20
FILES = {
    **dict.fromkeys(
        ["a-b/x.txt", "a/z.txt", "a/b/c.txt", "a.txt", "B.txt", "b.txt", "z z/ü.txt", "n#1/a#2.txt"], "text"
    ),
    **dict.fromkeys([".hidden", ".git/config", "a/.x/y.txt", "node_modules/p/i.js", "a/~$lock.docx"], "text"),
    **dict.fromkeys(["drafts/a.txt", "drafts/keep.txt", "logs/n.log", "logs/deep/n.log", "out/a.tmp"], "text"),
    ".embedcliignore": "drafts/*\n!drafts/keep.txt\n",
    "logs/.embedcliignore": "*.log\n",
    "out/.gitignore": "*.tmp\n",
    "p%20q/r%20s.txt": "text",
    "big.txt": "x" * (MIB + 1),
    "big.jsonl": "x" * (MIB + 1),
    "idx/generations/000001/manifest.json": "{}",
    "idx/generations/000001/documents.parquet": "",
    **{f"idx/{name}/x": "" for name in ("staging", "keys", "changes", "state")},
}


@pytest.fixture
def folder(tmp_path: Path, bucket: S3Bucket) -> Path:  # noqa: F811
    """The files, on this machine and in the bucket, below `docs/`."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    bucket.put_folder(tmp_path, "docs/")
    bucket.put("docs2/other.txt", "text")
    return tmp_path


def in_bucket(root: Root, *, below: str = "", problems: WalkProblems | None = None) -> list[Source]:
    problems = problems if problems is not None else WalkProblems()
    return list(walk_bucket(root, below=below, max_text_bytes=MIB, problems=problems))


ROOTS = {
    "plain": {},
    "gitignore": {"gitignore": True},
    "include": {"include": ("*.txt", "!B.txt")},
    "exclude": {"exclude": ("a/", "/b.txt", "nothing-such")},
    "all": {"default_excludes": False},
    "records": {"records": (RecordRule(pattern="big.txt"),)},
}


@pytest.mark.parametrize("kind", ROOTS)
@pytest.mark.parametrize("below", ["", "a", "logs/deep", "drafts/keep.txt", "a.txt", "nowhere"])
def test_a_bucket_has_the_sources_that_a_folder_has(folder: Path, bucket: S3Bucket, kind: str, below: str) -> None:  # noqa: F811
    here = replace(root_of(str(folder)), **ROOTS[kind])  # type: ignore[arg-type]
    there = replace(root_of(f"{bucket.url}/docs/"), **ROOTS[kind])  # type: ignore[arg-type]
    problems, seen = WalkProblems(), WalkProblems()
    local = list(walk(here, below=below, skip_folder=None, max_text_bytes=MIB, problems=problems))
    found = in_bucket(there, below=below, problems=seen)
    assert [(one.path, one.problem) for one in found] == [(one.path, one.problem) for one in local]
    assert [one.file for one in found] == [f"{bucket.url}/docs/{one.path}" for one in local]
    assert seen.unmatched == problems.unmatched
    assert [one.stat.size for one in found if one.stat] == [one.stat.size for one in local if one.stat]


def test_only_ignore_files_are_read(folder: Path, bucket: S3Bucket) -> None:  # noqa: F811
    in_bucket(root_of(f"{bucket.url}/docs"))
    assert sorted(bucket.front.objects()) == [
        f"/{bucket.name}/docs/.embedcliignore", f"/{bucket.name}/docs/logs/.embedcliignore"
    ]  # fmt: skip
    assert len(bucket.front.listings()) == 1


def test_keys_that_no_folder_can_have_are_sources_with_uris_of_their_own(bucket: S3Bucket) -> None:  # noqa: F811
    keys = ["a//b", "/a", "a/", "a/b", "a", "A", "a#b", "a b", "a%20b", "a%FF", "a%25FF", "%"]
    for key in keys:
        bucket.put(key, "text")
    bucket.put("empty/", b"")
    below = {one.path for one in in_bucket(root_of(f"{bucket.url}/a"))}
    assert below == {"/b", "b"}, "the object `a/` stands for the root itself"
    found = in_bucket(root_of(bucket.url))
    assert {one.file for one in found} == {f"{bucket.url}/{key}" for key in keys}
    assert len({one.uri for one in found}) == len({one.path for one in found}) == len(keys)
    parts = [one.path.split("/") for one in found]
    assert parts == sorted(parts)


def test_a_bucket_that_cannot_be_listed_is_unlisted_with_words(bucket: S3Bucket) -> None:  # noqa: F811
    bucket.front.instead = lambda method, path: (403, error_body("AccessDenied"))
    problems = WalkProblems()
    assert in_bucket(root_of(f"{bucket.url}/docs"), problems=problems) == []
    assert problems.unlisted == {"": "permission"} and "may not be read" in problems.details[""]


def test_a_listing_that_breaks_off_gives_no_source_at_all(bucket: S3Bucket) -> None:  # noqa: F811
    for number in range(1_001):
        bucket.put(f"{number:04d}.txt", b"text")
    bucket.front.instead = lambda method, path: (403, error_body("ExpiredToken")) if "continuation" in path else None
    problems = WalkProblems()
    assert in_bucket(root_of(bucket.url), problems=problems) == []
    assert problems.unlisted == {"": "permission"} and "expired" in problems.details[""]


def test_a_folder_whose_ignore_file_cannot_be_read_is_a_source_with_its_problem(folder: Path, bucket: S3Bucket) -> None:  # noqa: F811
    bucket.front.instead = lambda method, path: (
        (403, error_body("AccessDenied")) if path.endswith("logs/.embedcliignore") else None
    )
    problems = WalkProblems()
    found = {one.path: one.problem for one in in_bucket(root_of(f"{bucket.url}/docs"), problems=problems)}
    assert found["logs"] == "permission" and not any(path.startswith("logs/") for path in found)
    assert problems.unlisted == {"logs": "permission"}


def test_an_object_is_no_source_by_itself(bucket: S3Bucket) -> None:  # noqa: F811
    bucket.put("docs/a.txt", "text")
    with pytest.raises(InputError, match="is an object") as raised:
        in_bucket(root_of(f"{bucket.url}/docs/a.txt"))
    assert raised.value.hint == f"name its folder: `embedcli ingest {bucket.url}/docs --include /a.txt`"


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(InputError, match="`s3://` names no bucket"):
        root_of("s3://")
