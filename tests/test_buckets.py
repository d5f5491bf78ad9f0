"""Nights over a bucket: what a folder promises, a root in a bucket keeps.

Not here: what a bucket is asked (sources/buckets/).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from embedcli.errors import InputError
from embedcli.sources.buckets import connection
from embedcli.sources.buckets.s3 import S3
from embedcli.verbs.edits.forget import forget
from embedcli.verbs.edits.moved import moved
from embedcli.verbs.status import status, troubled
from tests.buckets import S3Bucket, bucket, error_body, nothing, writer  # noqa: F401
from tests.held import Held
from tests.published import damage, index_of, silent
from tests.workshop import Workshop, words

ACCESS_DENIED = (403, error_body("AccessDenied"))


@pytest.fixture
def corpus(shop: Workshop, bucket: S3Bucket) -> str:  # noqa: F811
    """Ten documents, a table of records, a mail with an attachment; here and below `docs/` in the bucket."""
    for number in range(10):
        shop.write(f"part-{number % 3}/{number}.md", f"# Part {number}\n\n{words(40, number)}")
    shop.write("tickets.jsonl", "".join(json.dumps({"id": n, "text": words(8, 90 + n)}) + "\n" for n in range(4)))
    shop.write("table.csv", "number,text\n1,a red light\n2,a blue light\n")
    shop.write("mail.eml", MAIL)
    shutil.copy(Path(__file__).parent.parent / "samples/cjk.pdf", shop.docs / "cjk.pdf")
    bucket.put_folder(shop.docs, "docs/")
    return f"{bucket.url}/docs"


MAIL = """From: a@example.org
To: b@example.org
Subject: the offer
Date: Mon, 02 Nov 2026 10:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: text/plain

The offer is attached.
--x
Content-Type: text/plain
Content-Disposition: attachment; filename=offer.txt

Two pumps, one valve.
--x--
"""


def contents(shop: Workshop, root: str) -> list[Any]:
    """The rows by what they say: without ids, and with uris below their root."""
    names = ("path", "chunk_index", "text", "section", "page_start", "token_count", "chunk_digest", "vector")
    return [(row["uri"].removeprefix(root), *(str(row[name]) for name in names)) for row in shop.rows()]


def test_a_bucket_gives_the_rows_that_the_same_folder_gives(shop: Workshop, corpus: str) -> None:
    local = Workshop(shop.docs.parent, index="local")
    local.ingest(records=())
    shop.ingest(corpus)
    assert contents(shop, corpus) == contents(local, str(shop.docs)) != []
    assert {row["uri"] for row in shop.documents().values()} == {f"{corpus}/{path}" for path in shop.documents()}
    assert {name: row["status"] for name, row in shop.documents().items()} == {
        name: row["status"] for name, row in local.documents().items()
    }
    assert damage(shop) == []


def test_real_reading_processes_read_out_of_a_bucket(tmp_path: Path, shop: Workshop, corpus: str) -> None:
    other = Workshop(tmp_path / "other", reading_processes=True)
    other.ingest(corpus)
    shop.ingest(corpus)
    assert contents(other, corpus) == contents(shop, corpus)


def test_an_unchanged_object_costs_no_get(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(corpus)
    bucket.front.asked.clear()
    assert shop.ingest().idle
    assert bucket.front.objects() == [] and len(bucket.front.listings()) == 1
    assert [method for method, *_ in bucket.front.asked] == ["GET"]


def test_an_object_written_again_with_the_same_bytes_costs_no_get(
    shop: Workshop,
    corpus: str,
    bucket: S3Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop.ingest(corpus)
    before = shop.documents()["part-0/0.md"]
    monkeypatch.setattr("embedcli.sources.buckets.s3._seconds", lambda time: 1_800_000_000)
    bucket.front.asked.clear()
    assert shop.ingest().idle and bucket.front.objects() == []
    assert shop.documents()["part-0/0.md"] == before


def test_one_changed_one_new_and_one_deleted_object(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(corpus)
    bucket.put("docs/part-0/0.md", f"# Part 0\n\n{words(40, 0)}\nOne line more.\n")
    bucket.put("docs/new.txt", words(12, 77))
    bucket.delete("docs/part-1/1.md")
    bucket.front.asked.clear()
    summary = shop.ingest()
    counted = {name: summary.sources[name] for name in ("new", "changed", "gone")}
    assert counted == {"new": 1, "changed": 1, "gone": 1} and summary.exit_code == 0
    assert set(bucket.front.objects()) == {f"/{bucket.name}/docs/part-0/0.md", f"/{bucket.name}/docs/new.txt"}
    assert 0 < summary.chunks["embedded"] < 5 and shop.ingest().idle


def test_an_object_that_moved_is_recognised_and_embeds_nothing(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(corpus)
    had = shop.embedded
    bucket.put("docs/elsewhere/0.md", (shop.docs / "part-0/0.md").read_bytes())
    bucket.delete("docs/part-0/0.md")
    summary = shop.ingest()
    assert (summary.sources["moved"], summary.sources["gone"], shop.embedded) == (1, 0, had)


REFUSED = {
    "403": (lambda method, path: ACCESS_DENIED, "may not be read", "permission"),
    "expired": (lambda method, path: (400, error_body("ExpiredToken")), "credentials have expired", "permission"),
    "503": (lambda method, path: (503, error_body("SlowDown")), "too busy", "io"),
    "bucket gone": (lambda method, path: (404, error_body("NoSuchBucket")), "no such bucket", "vanished"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bucket_that_cannot_be_listed_leaves_everything_as_it_was(
    shop: Workshop,
    corpus: str,
    bucket: S3Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.0)
    instead, told, reason = REFUSED[kind]
    other = shop.write("here.txt", words(10, 55))
    shop.ingest(corpus, other)
    rows = shop.content()
    bucket.front.asked.clear()
    bucket.front.instead = instead
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["gone"]) == (3, 0) and shop.content() == rows
    assert any(told in line and corpus in line for line in shop.report.said)
    found = {row["reason"] for row in shop.documents().values() if row["status"] == "stale"}
    assert found == {reason} and summary.sources["unchanged"] >= 1
    again = shop.ingest()
    assert again.exit_code == 0, "known trouble is no news"
    assert len(bucket.front.listings()) == len(bucket.front.asked) and bucket.front.objects() == []
    bucket.front.instead = nothing
    shop.ingest()
    assert bucket.front.objects() == [], "a night without a network costs no reading"
    assert {row["status"] for row in shop.documents().values()} == {"indexed"} and shop.content() == rows


@pytest.mark.parametrize("kind", REFUSED)
def test_a_new_bucket_that_cannot_be_listed_is_exit_15_with_the_words(
    shop: Workshop,
    corpus: str,
    bucket: S3Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_S", 0.0)
    instead, told, _ = REFUSED[kind]
    bucket.front.instead = instead
    with pytest.raises(InputError, match=told) as raised:
        shop.ingest(corpus)
    assert "AWS_ENDPOINT_URL" in raised.value.hint and not (shop.index / "current").exists()


def test_a_prefix_without_any_object_is_like_an_unmounted_share(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(corpus)
    for path in shop.documents():
        bucket.delete(f"docs/{path.partition('#')[0]}")
    with pytest.raises(InputError, match="known sources of `.*` are gone; nothing was changed"):
        shop.ingest()
    assert shop.ingest(max_gone_percent=100.0).sources["gone"] > 10


def test_a_folder_of_a_bucket_that_lost_most_of_its_objects_is_frozen(shop: Workshop, bucket: S3Bucket) -> None:  # noqa: F811
    for number in range(12):
        bucket.put(f"docs/many/{number}.txt", words(10, number))
    bucket.put("docs/other.txt", words(10, 50))
    shop.ingest(f"{bucket.url}/docs")
    for number in range(8):
        bucket.delete(f"docs/many/{number}.txt")
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["gone"]) == (3, 0)
    assert any(f"--max-gone {bucket.url}/docs/many=100" in line for line in shop.report.said)
    assert shop.ingest(max_gone_of=((f"{bucket.url}/docs/many", 100.0),)).sources["gone"] == 8


def test_a_single_object_that_may_not_be_read_is_its_own_failure(
    shop: Workshop,
    corpus: str,
    bucket: S3Bucket,  # noqa: F811
) -> None:
    bucket.front.instead = lambda method, path: ACCESS_DENIED if path.endswith("/0.md") else None
    summary = shop.ingest(corpus)
    assert (summary.exit_code, summary.failures) == (3, {"permission": 1})
    table = troubled(index_of(shop))
    assert table.to_pylist() == [{"status": "failed", "reason": "permission", "uri": f"{corpus}/part-0/0.md"}]
    bucket.front.instead = nothing
    assert shop.ingest().failures == {}


def test_an_object_that_changes_under_its_reader_twice_is_changed_while_reading(
    shop: Workshop,
    bucket: S3Bucket,  # noqa: F811
) -> None:
    bucket.put("docs/a.txt", words(10))
    bucket.put("docs/big.txt", "x " * (5 << 20))
    times = [0]

    def change(method: str, path: str) -> None:
        if path.endswith("big.txt") and bucket.front.asked[-1][3]:
            times[0] += 1
            bucket.put("docs/big.txt", f"{times[0]} " * (5 << 20))

    bucket.front.before = change
    summary = shop.ingest(f"{bucket.url}/docs")
    assert summary.failures == {"changed_while_reading": 1} and times == [2]


def test_an_object_that_changed_since_the_listing_is_read_as_it_is_now(shop: Workshop, bucket: S3Bucket) -> None:  # noqa: F811
    bucket.put("docs/a.txt", words(10))

    def change(method: str, path: str) -> None:
        if path.endswith("a.txt"):
            bucket.put("docs/a.txt", "The pump was mended.\n")

    bucket.front.before = change
    shop.ingest(f"{bucket.url}/docs")
    bucket.front.before = nothing
    assert [row["text"] for row in shop.rows()] == ["The pump was mended.\n"]
    bucket.front.asked.clear()
    assert shop.ingest().idle and bucket.front.objects() == [], "what is stored is the stat of what was read"


def test_what_lies_in_cold_storage_is_skipped_and_read_once_it_is_restored(
    shop: Workshop,
    bucket: S3Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One object is known from the listing, the other from the answer."""
    bucket.put("docs/a.txt", words(10))
    bucket.put("docs/cold.txt", words(10, 2), StorageClass="GLACIER")
    bucket.put("docs/b.txt", words(10, 3))
    bucket.front.instead = lambda method, path: COLD if path.endswith("b.txt") else None
    monkeypatch.setattr(S3, "_tells_cold", True)
    summary = shop.ingest(f"{bucket.url}/docs")
    assert summary.exit_code == 0
    assert {path: row["reason"] for path, row in shop.documents().items()} == {
        "a.txt": None, "cold.txt": "cold_storage", "b.txt": "cold_storage"
    }  # fmt: skip
    assert shop.ingest().idle
    bucket.front.instead = nothing
    bucket.put("docs/cold.txt", words(10, 2))
    shop.ingest()
    assert {row["status"] for row in shop.documents().values()} == {"indexed"}


COLD = (403, error_body("InvalidObjectState"))


@pytest.mark.parametrize("listed", [True, False])
def test_a_document_that_goes_into_cold_storage_stays_as_it_was(
    shop: Workshop,
    bucket: S3Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    listed: bool,
) -> None:
    monkeypatch.setattr(S3, "_tells_cold", listed)
    bucket.put("docs/a.txt", words(10))
    bucket.put("docs/b.txt", words(10, 1))
    shop.ingest(f"{bucket.url}/docs")
    rows = shop.content()
    bucket.put("docs/a.txt", words(10), StorageClass="GLACIER")
    assert shop.ingest().idle and shop.content() == rows
    bucket.put("docs/b.txt", words(10, 9), StorageClass="GLACIER")
    assert [shop.ingest().exit_code for _ in range(2)] == [3, 0] and shop.content() == rows
    assert {path: row["status"] for path, row in shop.documents().items()} == {"a.txt": "indexed", "b.txt": "stale"}


def test_odd_keys_are_documents_with_uris_of_their_own(shop: Workshop, bucket: S3Bucket) -> None:  # noqa: F811
    keys = [
        "a//b.txt",
        "/a.txt",
        "a/",
        "a/c",
        "A/c",
        "a#b.txt",
        "a b.txt",
        "a%20b.txt",
        "a%FF.txt",
        "t.jsonl",
        "t.jsonl#1",
    ]
    for number, key in enumerate(keys):
        bucket.put(key, json.dumps({"id": "1", "text": "a record"}) if key == "t.jsonl" else f"this is {number}\n")
    shop.ingest(bucket.url)
    rows = shop.rows()
    assert len({row["uri"] for row in rows}) == len({row["doc_id"] for row in rows}) == len(keys)
    texts = {row["uri"].removeprefix(f"{bucket.url}/"): row["text"] for row in rows}
    assert texts["/a.txt"] == "this is 1\n" and texts["a//b.txt"] == "this is 0\n" and texts["a/"] == "this is 2\n"
    assert texts["a%25FF.txt"] == "this is 8\n" and texts["a%20b.txt"] == "this is 7\n"
    assert shop.ingest().idle


def test_records_filters_and_ignore_files_work_as_in_a_folder(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    from embedcli.records import RecordRule

    bucket.put("docs/.embedcliignore", "part-2/\n")
    rule = RecordRule(pattern="*.csv", id="number")
    shop.ingest(corpus, exclude=("*.pdf", "*.eml"), records=(rule,))
    paths = {row["path"] for row in shop.rows()}
    assert paths == {
        *(f"part-{number % 3}/{number}.md" for number in range(10) if number % 3 != 2),
        *(f"tickets.jsonl#{number}" for number in range(4)), "table.csv#1", "table.csv#2",
    }  # fmt: skip
    bucket.put("docs/.embedcliignore", "")
    assert shop.ingest().sources["new"] == 3
    assert shop.ingest(corpus, include=("*.md",)).sources["excluded"] > 0


def test_a_folder_below_a_root_is_a_part_of_it(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(corpus)
    bucket.put("docs/part-1/new.txt", words(10, 60))
    bucket.put("docs/part-2/new.txt", words(10, 61))
    assert shop.ingest(f"{corpus}/part-1").sources["new"] == 1
    bucket.delete("docs/part-1/new.txt")
    assert shop.ingest(f"{corpus}/part-1/").sources["gone"] == 1
    assert shop.ingest().sources["new"] == 1


def test_a_wider_root_takes_over_a_narrower_one(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(f"{corpus}/part-1")
    had = shop.embedded
    shop.ingest(corpus)
    assert {row["root"] for row in shop.documents().values()} == {next(iter(shop.documents().values()))["root"]}
    assert len(shop.documents()) > 10 and shop.embedded > had


def test_a_folder_that_moved_into_a_bucket_embeds_nothing(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest()
    had, ids = shop.embedded, shop.ids()
    shutil.rmtree(shop.docs)
    done = moved(index_of(shop), str(shop.docs), corpus, warn=silent)
    assert done.sources >= 13 and {row["uri"].startswith(f"{corpus}/") for row in shop.rows()} == {True}
    summary = shop.ingest()
    assert summary.idle and (shop.embedded, shop.ids()) == (had, ids)
    bucket.front.asked.clear()
    assert shop.ingest().idle and bucket.front.objects() == [], "once looked at, they are known by their ETags"


def test_a_folder_of_a_bucket_may_move_within_it(shop: Workshop, corpus: str, bucket: S3Bucket) -> None:  # noqa: F811
    shop.ingest(corpus)
    had = shop.embedded
    for path in [path for path in shop.documents() if path.startswith("part-1/")]:
        bucket.put(f"docs/other/{path[7:]}", (shop.docs / path).read_bytes())
        bucket.delete(f"docs/{path}")
    moved(index_of(shop), f"{corpus}/part-1", f"{corpus}/other", warn=silent)
    bucket.put("docs/other/zero.md", (shop.docs / "part-0/0.md").read_bytes())
    bucket.delete("docs/part-0/0.md")
    moved(index_of(shop), f"{corpus}/part-0/0.md", f"{corpus}/other/zero.md", warn=silent)
    assert shop.ingest().idle and shop.embedded == had
    assert {path for path in shop.documents() if path.startswith("other/")} == {
        "other/1.md",
        "other/4.md",
        "other/7.md",
        "other/zero.md",
    }


def test_forget_removes_a_root_in_a_bucket_and_a_part_of_one(shop: Workshop, corpus: str) -> None:
    shop.ingest(corpus)
    warned: list[str] = []
    assert forget(index_of(shop), f"{corpus}/part-1", warn=warned.append).sources == 3
    assert f"`{corpus}/part-1` is still there" in warned[0]
    assert forget(index_of(shop), f"{corpus}/", warn=silent).sources >= 10
    assert shop.rows() == []


def test_status_verify_and_dry_run_know_such_a_root(shop: Workshop, corpus: str, command: Callable[..., Any]) -> None:
    told = command("ingest", corpus, "--index", shop.index, "--dry-run", "--dim", "16", "--max-tokens", "64")
    assert told.exit_code == 0, told.output
    assert not (shop.index / "current").exists()
    shop.ingest(corpus)
    assert [root["path"] for root in status(index_of(shop)).roots] == [corpus]
    for arguments in (["status", shop.index], ["verify", shop.index], ["status", shop.index, "--failed"]):
        assert command(*arguments).exit_code == 0
    assert corpus in command("status", shop.index).output


def test_a_damaged_shard_is_read_again_out_of_the_bucket(shop: Workshop, corpus: str, tmp_path: Path) -> None:
    shop.ingest(corpus)
    rows = {row["chunk_id"] for row in shop.rows()}
    (shard,) = sorted((shop.index / "current/vectors").glob("*.parquet"))[:1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.chmod(0o600)
    shard.write_bytes(data)
    assert damage(shop) != []
    other = shop.write("here.txt", words(10, 55))
    shop.ingest(other)
    assert rows <= {row["chunk_id"] for row in shop.rows()}
    assert pq.read_table(shop.index / "current/vectors").num_rows > len(rows)


def test_a_list_of_files_is_of_this_machine(
    shop: Workshop, corpus: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "list").write_text(f"{corpus}/part-0/0.md\n")
    ran = command("ingest", "--files-from", tmp_path / "list", "--index", shop.index)
    assert isinstance(ran.exception, InputError) and "lists are of files on this machine" in str(ran.exception)


def test_the_program_killed_while_it_reads_out_of_a_bucket_goes_on(
    tmp_path: Path,
    bucket: S3Bucket,  # noqa: F811
) -> None:
    for number in range(40):
        bucket.put(f"docs/{number:02d}.txt", words(60, number))  # of one chunk: whole when it is embedded
    index, whole = tmp_path / "index", tmp_path / "whole"
    program = [sys.executable, str(Path(__file__).parent / "quick_embedcli.py"), "ingest", f"{bucket.url}/docs"]
    flags = ["--dim", "16", "--checkpoint-every", "0"]
    subprocess.run([*program, "--index", str(whole), *flags], check=True, capture_output=True)
    held = Held(tmp_path / "held", "list 3")
    env = {**os.environ, **held.environment}
    killed = subprocess.Popen([*program, "--index", str(index), *flags], stderr=subprocess.DEVNULL, env=env)
    held.wait(killed)
    while not any(index.glob("staging/*/part-*.parquet")):
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert any(index.glob("staging/*/part-*.parquet")) and not (index / "current").exists()
    ran = subprocess.run([*program, "--index", str(index), *flags], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert not any(index.glob("staging/*"))
    one, other = (pq.read_table(place / "current/vectors").sort_by("chunk_id") for place in (index, whole))
    assert one.column("chunk_id") == other.column("chunk_id") and one.num_rows == 40
    again = subprocess.run([*program[:3], "--index", str(index), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["sources"]["unchanged"] == 40
