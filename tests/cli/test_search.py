"""`embedcli search` on the command line: its formats, its exit codes, and what it says of bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from embedcli.cli.texts.search import excerpt
from embedcli.search.words import terms
from tests.workshop import Workshop

QUICK = Path(__file__).parent.parent / "quick_embedcli.py"
RED = "The light blinks red: the battery is empty."
GREEN = "The light is green: everything works."


@pytest.fixture
def lamp(shop: Workshop) -> Workshop:
    shop.write("manual/red.md", f"# Lamp\n\n## Red\n\n{RED}")
    shop.write("manual/green.md", f"# Lamp\n\n## Green\n\n{GREEN}")
    shop.write("other/%FF name\n.txt", "Something else about a battery.")
    shop.ingest()
    return shop


@pytest.fixture
def search(command: Callable[..., Any], lamp: Workshop) -> Callable[..., Any]:
    return lambda *arguments: command("search", *arguments, "--index", lamp.index)


def hits(ran: Any) -> list[dict[str, Any]]:
    return [hit for result in json.loads(ran.stdout)["results"] for hit in result["hits"]]


def test_a_hit_is_a_rank_a_score_a_place_and_its_passage(search: Callable[..., Any]) -> None:
    ran = search("blinks red", "--mode", "words")
    assert ran.exit_code == 0
    head, *passage = ran.stdout.splitlines()
    assert head == " 1 0.490 manual/red.md, Lamp"
    assert RED in " ".join(line.strip() for line in passage)
    assert "\x1b" not in ran.stdout and not any(line != line.rstrip() for line in ran.stdout.splitlines())


def test_both_judgements_are_shown_in_hybrid(search: Callable[..., Any]) -> None:
    head = search("blinks red").stdout.splitlines()[0]
    assert re.fullmatch(r" 1 0\.\d{3} manual/red\.md, Lamp  cosine 0\.\d\d, words 0\.49", head)


def test_json_is_one_object_with_every_column_but_the_vector(search: Callable[..., Any], lamp: Workshop) -> None:
    ran = search("blinks red", "--json", "-k", "1", "--mode", "words")
    found = json.loads(ran.stdout)
    assert (found["exit_code"], found["index"]) == (0, str(lamp.index))
    (result,) = found["results"]
    assert (result["query"], result["generation"], result["mode"]) == ("blinks red", 1, "words")
    (hit,) = result["hits"]
    assert (hit["rank"], hit["score"], hit["cosine"], hit["coverage"]) == (1, 0.489969, None, 0.489969)
    (row,) = (row for row in lamp.rows() if row["path"] == "manual/red.md")
    for name in ("chunk_id", "doc_id", "uri", "path", "section", "text", "char_start", "page_start"):
        assert hit[name] == row[name]
    assert hit["modified_at"] == row["modified_at"].isoformat() and "vector" not in hit


def test_jsonl_is_an_object_a_hit(search: Callable[..., Any]) -> None:
    lines = [json.loads(line) for line in search("battery", "--jsonl", "--mode", "words").stdout.splitlines()]
    assert [line["rank"] for line in lines] == [1, 2] and {line["query"] for line in lines} == {"battery"}


def test_paths_are_those_of_the_files_each_once(search: Callable[..., Any], lamp: Workshop) -> None:
    ran = search("battery light", "--format", "paths", "-0", "--mode", "words")
    paths = ran.stdout_bytes.split(b"\0")
    assert paths.pop() == b"" and len(paths) == len(set(paths)) == 3
    assert all(os.path.exists(path) for path in paths) and os.fsencode(lamp.docs / "other/%FF name\n.txt") in paths


def test_queries_come_from_stdin_one_a_line(lamp: Workshop) -> None:
    queries = "blinks red\n\n  \nelse about\r\nnowhere\n\xff".encode("latin-1")
    ran = subprocess.run(
        [sys.executable, str(QUICK), "search", "-", "--index", str(lamp.index), "--mode", "words", "--json"],
        input=queries, capture_output=True,
    )  # fmt: skip
    found = json.loads(ran.stdout)["results"]
    assert [result["query"] for result in found] == ["blinks red", "else about", "nowhere", "\N{REPLACEMENT CHARACTER}"]
    assert [len(result["hits"]) for result in found] == [1, 1, 0, 0]


def test_each_query_of_stdin_is_answered_before_the_next_one_comes(lamp: Workshop) -> None:
    arguments = [sys.executable, str(QUICK), "search", "-", "--index", str(lamp.index), "--mode", "words", "--jsonl"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for query in (b"blinks\n", b"else\n"):
            process.stdin.write(query)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["query"] == query.decode().strip()
        process.stdin.close()
    assert process.returncode == 0


def test_above_the_hits_of_several_queries_stands_the_query(lamp: Workshop) -> None:
    ran = subprocess.run(
        [sys.executable, str(QUICK), "search", "-", "--index", str(lamp.index), "--mode", "words"],
        input=b"red\nelse\n", capture_output=True, check=True,
    )  # fmt: skip
    assert [line for line in ran.stdout.decode().splitlines() if line.startswith(">")] == ["> red", "> else"]


def test_more_like_a_chunk(search: Callable[..., Any], command: Callable[..., Any], lamp: Workshop) -> None:
    (hit,) = hits(search("blinks red", "--json", "-k", "1", "--mode", "words"))
    ran = command("search", "--like", hit["chunk_id"], lamp.index, "--json")
    assert len(hits(ran)) == 2 and hit["chunk_id"] not in {other["chunk_id"] for other in hits(ran)}


def test_conditions_and_the_least_score(search: Callable[..., Any]) -> None:
    assert [hit["path"] for hit in hits(search("light", "--where", "path like '%green%'", "--json"))] == [
        "manual/green.md"
    ]
    assert hits(search("light", "--min-score", "0.3", "--mode", "words", "--json")) != []
    assert hits(search("light nowhere", "--min-score", "0.3", "--mode", "words", "--json")) == []


def test_nothing_found_is_said_and_is_no_failure_unless_asked_for(search: Callable[..., Any]) -> None:
    ran = search("nowhere", "--mode", "words")
    assert (ran.exit_code, ran.stdout) == (0, "") and "nothing found" in ran.stderr
    ran = search("nowhere", "--mode", "words", "--fail-if-none", "--json")
    assert ran.exit_code == 3 and json.loads(ran.stdout)["exit_code"] == 3
    assert search("red", "--mode", "words", "--fail-if-none").exit_code == 0


def test_more_hits_than_there_are_chunks_is_a_note(search: Callable[..., Any]) -> None:
    ran = search("light", "-k", "50", "--json")
    assert ran.exit_code == 0 and len(hits(ran)) == 3
    assert "note: the index holds 3 chunks, fewer than `-k 50`" in ran.stderr


# ---- bad input

BAD: list[tuple[tuple[str, ...], int, str]] = [
    ((), 2, "there is no query"),
    (("",), 2, "the query is empty"),
    (("red", "-k", "0"), 2, "`-k` must be at least 1"),
    (("red", "--min-score", "nan"), 2, "`--min-score` must be a number"),
    (("red", "--mode", "fuzzy"), 2, "is not one of hybrid, vector, words"),
    (("red", "--format", "xml"), 2, "`--format xml` is not one of text, json, jsonl, paths"),
    (("red", "--json", "--jsonl"), 2, "json and jsonl are two formats"),
    (("red", "--json", "--format", "paths"), 2, "two formats"),
    (("red", "-0"), 2, "`-0` can only be used with `--format paths`"),
    (("red", "--where", "path like"), 2, "`--where` cannot be used: "),
    (("red", "--where", "colour = 'red'"), 2, "colour"),
    (("--like", "0" * 32), 2, "has no chunk"),
    (("--like=-abc",), 2, "has no chunk"),
    (("--like", "-" + "f" * 31), 2, "has no chunk"),
    (("red", "more", "--like", "0" * 32), 2, "`--like` takes the place of the query"),
    (("--like", "0" * 32, "--mode", "words"), 2, "`--like` compares vectors"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[" ".join(case[0]) or "none" for case in BAD])
def test_bad_input_is_one_line_and_a_hint_and_changes_nothing(
    search: Callable[..., Any], lamp: Workshop, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = tree(lamp.index)
    ran = search(*arguments)
    error = ran.exception
    assert error.exit_code == code and message in str(error) and "\n" not in str(error)
    assert ran.stdout == "" and tree(lamp.index) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", b"b\xff", "--mode", "words"], "error: the query is not UTF-8"),
        (["search", "red", "--where", b"path = '\xff'"], "error: `--where` cannot be used: it is not UTF-8"),
        (["rows", "--where", b"path = '\xff'"], "error: `--where` cannot be used: it is not UTF-8"),
    ],
)
def test_an_argument_that_is_not_utf8_is_exit_2(lamp: Workshop, arguments: list[str | bytes], message: str) -> None:
    ran = subprocess.run([sys.executable, str(QUICK), *arguments, "--index", str(lamp.index)], capture_output=True)
    assert ran.returncode == 2 and message in ran.stderr.decode() and b"Traceback" not in ran.stderr


def tree(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", ["missing", "empty", "strange", "file"])
def test_what_is_not_an_index_is_exit_10_and_stays_as_it_is(
    command: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / kind
    if kind == "file":
        folder.write_text("")
    elif kind != "missing":
        folder.mkdir()
    if kind == "strange":
        (folder / "letter.txt").write_text("")
    before = tree(tmp_path)
    ran = command("search", "red", folder)
    assert ran.exception.exit_code == 10 and ran.exception.hint
    assert tree(tmp_path) == before


def test_an_engine_that_does_not_start_is_exit_13_but_words_are_searched(
    search: Callable[..., Any], lamp: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = lamp.index / "current/manifest.json"
    data = json.loads(manifest.read_text())
    gone = str(lamp.docs / "no-such-model")
    data["settings"]["model"] = gone
    data["query"] |= {"model": gone, "folder": gone}
    manifest.write_text(json.dumps(data))
    assert search("red").exception.exit_code == 13
    assert search("red", "--mode", "words").exit_code == 0


def test_an_error_in_json_is_an_object_too(lamp: Workshop) -> None:
    arguments = [sys.executable, str(QUICK), "search", "", "--index", str(lamp.index), "--format", "json"]
    ran = subprocess.run(arguments, capture_output=True, text=True)
    assert ran.returncode == 2 and json.loads(ran.stdout)["error"] == "the query is empty"
    assert ran.stderr.startswith("error: the query is empty\n\nhint: ")


# ---- the part of a passage that is shown


def test_the_part_with_the_most_words_of_the_query_is_shown_and_they_are_marked() -> None:
    passage = "alpha " * 200 + "the red light blinks " + "omega " * 200 + "red " * 3
    shown = excerpt(passage, frozenset(terms("red light")), 120)
    assert "the red light blinks" in shown.plain and shown.plain.startswith("… ") and shown.plain.endswith(" …")
    assert [shown.plain[span.start : span.end] for span in shown.spans] == ["red", "light"]
    assert cell_len(shown.plain) <= 130


def test_wide_letters_take_two_cells() -> None:
    shown = excerpt("東京" * 400, frozenset(), 120)
    assert 100 <= cell_len(shown.plain) <= 126


def test_a_short_passage_is_shown_whole_without_what_moves_the_cursor() -> None:
    assert (
        excerpt("red\x1b[2J\n\n light\x07", frozenset(), 100).plain
        == "red\N{REPLACEMENT CHARACTER}[2J light\N{REPLACEMENT CHARACTER}"
    )
