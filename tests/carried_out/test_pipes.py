"""The hints of `embed`, `rows`, `recut`, `search`, `changes` and of records, carried out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from embedcli.config import IndexSettings
from embedcli.models.folder import Model
from embedcli.search.sealed import DamagedCache
from tests.carried_out.table import (
    Command,
    Row,
    assert_types_what_it_names,
    carries_out,
    carry_out,
    cases,
    code_of,
    type_in,
)
from tests.fake_engines import FakeEngine
from tests.hint_states import State, after, indexed, nothing, shell, twice, with_a_damaged_list, with_records
from tests.workshop import Workshop

LINES = "printf 'The hub speaks Matter.\\nA battery.\\n' > {parent}/lines"
JSON = 'printf \'{{"text": "The hub speaks Matter."}}\\n\' > {parent}/json'
LONG = "{python} -c 'print(\"word \" * 600)' > {parent}/long"
EMBED = "embedcli embed {parent}/lines"
SEARCH = "embedcli search battery --index {index}"
RECUT = "embedcli recut {index} --out {parent}/narrow"
FIRST_ID = """grep -o '"chunk_id": *"[^"]*' | head -1 | cut -d'"' -f4"""
AN_ID = f"$({{program}} search battery --json --mode words --index {{index}} | {FIRST_ID})"
ONE_RECORD = 'printf \'{{"text": "Some words."}}\\n\''
AGAIN = "embedcli ingest --index {index}"
STREAM = ONE_RECORD + " | {program} ingest --index {index} --records - --name tickets"
LOOK_FOR = "name what to look for, such as `embedcli search 'red light' INDEX`"
GIVE = "give the texts on stdin, or in files that can be read"
QUERIES = "name a file with a query on each line"
NO_COLUMN = (
    "the columns are chunk_id, doc_id, uri, path, title, chunk_index, chunk_count, page_start, page_end, section,"
    " char_start, char_end, core_start, token_count, text, chunk_digest, modified_at, meta, changed_in, vector"
)
CONDITION = (
    "write a condition of DuckDB's SQL over the columns in the README, such as"
    " \"path like 'contracts/%' and meta.author = 'Lee'\""
)


def without_text(shop: Workshop) -> None:
    nothing(shop)
    shop.ingest(no_text=True)


def without_change_lists(shop: Workshop) -> None:
    twice(shop)
    shell("rm -r {index}/changes && echo Another. > {docs}/another.txt", shop)


class EngineOfLateNumbers(FakeEngine):
    """Its vectors begin with eight zeros."""

    vocabulary = None

    def embed(self, rows: Sequence[np.ndarray]) -> np.ndarray | None:
        vectors = super().embed(rows)
        assert vectors is not None
        vectors[:, :8] = 0.0
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def of_late_numbers(shop: Workshop) -> None:
    def open_engine(model: Model, settings: IndexSettings, device: str) -> FakeEngine:
        return EngineOfLateNumbers(dim=settings.dim, log=shop.log)

    nothing(shop)
    shop.ingest(open_engine=open_engine)


TEXTS: State = after(indexed, LINES, JSON, LONG)
ROWS = [
    Row(
        "leave `--text` out, or use `--format parquet`",
        TEXTS,
        f"{EMBED} --format npy --text",
        [[f"{EMBED} --format npy"], [f"{EMBED} --format parquet --text"]],
    ),
    Row(
        "use one of them",
        TEXTS,
        f"{EMBED} -0 --text-field text",
        [[f"{EMBED} -0"], ["embedcli embed {parent}/json --text-field text"]],
    ),
    *(
        Row(f"leave `{flag}` out", TEXTS, f"{EMBED} --index {{index}} {flag} {value}", [[f"{EMBED} --index {{index}}"]])
        for flag, value in (("--dim", "8"), ("--model", "minilm"), ("--max-tokens", "32"))
    ),
    *(
        Row(
            f"write it to a file: `> vectors.{form}`",
            TEXTS,
            f"{{on_a_terminal}} {{program}} embed {{parent}}/lines --format {form}",
            [[f"{{program}} embed {{parent}}/lines --format {form} > {{parent}}/vectors.{form}"]],
        )
        for form in ("parquet", "npy")
    ),
    Row(
        "give it a pipe, or a file with `< FILE` behind the command",
        after(indexed, LINES),
        "{program} search - --index {index} <&-",
        [["{program} search - --index {index} < {parent}/lines"]],
    ),
    Row(GIVE, TEXTS, "embedcli embed {parent}/none", [[EMBED], ["printf 'A text.' | {program} embed"]]),
    Row(GIVE, TEXTS, "embedcli embed {parent}", [[EMBED]]),
    Row(
        "embed texts that are too long with `--long split` or `--long truncate`",
        TEXTS,
        "embedcli embed {parent}/long",
        [["embedcli embed {parent}/long --long split"], ["embedcli embed {parent}/long --long truncate"]],
        codes=[0],
    ),
    Row(
        "the lines above name the texts; mend them and embed them again",
        after(nothing, "printf 'one\\n\\377\\nthree\\n' > {parent}/lines"),
        EMBED,
        [["sed -i '2c two' {parent}/lines", EMBED]],
        codes=[0],
    ),
    Row(
        "name the generation that you have; `--since 0` gives every row",
        twice,
        "embedcli rows {index} --since 9",
        [["embedcli rows {index} --since 1"], ["embedcli rows {index} --since 0"]],
    ),
    Row(NO_COLUMN, indexed, "embedcli rows {index} --columns file", [["embedcli rows {index} --columns path"]]),
    Row(
        CONDITION,
        indexed,
        'embedcli rows {index} --where "path like"',
        [["embedcli rows {index} --where \"path like 'contracts/%' and meta.author = 'Lee'\""]],
    ),
    Row(
        "write it to a folder, and copy that into the bucket",
        indexed,
        "embedcli recut {index} --out s3://bucket/narrow",
        [[RECUT, "cp -r {parent}/narrow {parent}/bucket"]],
    ),
    Row("name one of them", indexed, f"{RECUT} --dtype int4", [[f"{RECUT} --dtype int8"]]),
    Row("use `--dim 8`", indexed, f"{RECUT} --dim 12 --dtype binary", [[f"{RECUT} --dim 8 --dtype binary"]]),
    Row("use `--dim 16` or less", indexed, f"{RECUT} --dim 17", [[f"{RECUT} --dim 16"]]),
    Row("name a folder elsewhere with `--out`", indexed, "embedcli recut {index} --out {index}/narrow", [[RECUT]]),
    Row("name a new folder with `--out`", indexed, "embedcli recut {index} --out {docs}", [[RECUT]]),
    *(
        Row(QUERIES, state, f"{RECUT} --queries {{parent}}/queries", [[f"{RECUT} --queries {{parent}}/lines"]])
        for state in (TEXTS, after(TEXTS, "touch {parent}/queries"))
    ),
    Row("use a larger `--dim`", of_late_numbers, f"{RECUT} --dim 8", [[f"{RECUT} --dim 16"]]),
    Row("name only one of them", indexed, f"{SEARCH} --json --jsonl", [[f"{SEARCH} --json"], [f"{SEARCH} --jsonl"]]),
    Row("leave `-0` out", indexed, f"{SEARCH} -0", [[SEARCH]]),
    Row(
        "leave out either of them",
        after(indexed, "echo battery > {docs}/part/0.txt", "{program} ingest --index {index} --quiet"),
        f"{{program}} search battery {{index}} --like {AN_ID}",
        [["embedcli search battery {index}"], [f"{{program}} search {{index}} --like {AN_ID}"]],
    ),
    Row(
        "leave `--mode` out",
        after(indexed, "echo battery > {docs}/part/0.txt", "{program} ingest --index {index} --quiet"),
        f"{{program}} search {{index}} --like {AN_ID} --mode words",
        [[f"{{program}} search {{index}} --like {AN_ID}"]],
    ),
    Row(
        "take the `chunk_id` of a hit from `embedcli search --json`",
        after(indexed, "echo battery > {docs}/part/0.txt", "{program} ingest --index {index} --quiet"),
        "embedcli search {index} --like nothing",
        [[f"{{program}} search {{index}} --like {AN_ID}"]],
    ),
    Row(LOOK_FOR, indexed, "embedcli search --index {index}", [["embedcli search 'red light' {index}"]]),
    Row(LOOK_FOR, indexed, "embedcli search ' ' {index}", [["embedcli search 'red light' {index}"]]),
    Row(
        "type it in a terminal whose locale is UTF-8",
        indexed,
        "embedcli search l\udce4uft {index}",
        [["LC_ALL=C.UTF-8 {program} search läuft {index}"]],
    ),
    Row("leave `-k` out for ten hits", indexed, f"{SEARCH} -k 0", [[SEARCH]]),
    Row("leave `--min-score` out for any score", indexed, f"{SEARCH} --min-score nan", [[SEARCH]]),
    Row("leave `--mode` out for hybrid", indexed, f"{SEARCH} --mode both", [[SEARCH]]),
    *(
        Row(
            "search it with `--mode vector`, and without quotes",
            without_text,
            f"embedcli search {asked} --index {{index}}",
            [["embedcli search battery --mode vector --index {index}"]],
        )
        for asked in ("battery --mode words", "'\"battery\"'")
    ),
    Row(
        "write it to a file, and name that",
        indexed,
        "embedcli ingest --index {index} --records - --name tickets --dry-run",
        [[ONE_RECORD + " > {docs}/t.jsonl", "embedcli ingest --index {index} --records '*.jsonl' --dry-run"]],
    ),
    Row(
        "if they were deleted, add `--max-gone '{docs_}/t.jsonl=100'`",
        after(with_records, "sed -i 2,12d {docs}/t.jsonl"),
        "embedcli ingest --index {index} --rebuild",
        [["embedcli ingest --index {index} --rebuild --max-gone '{docs_}/t.jsonl=100'"]],
    ),
    Row(
        "give it again: `... | embedcli ingest --index {index} --records - --name tickets --whole --rebuild`,"
        " or remove it: `embedcli forget tickets --index {index}`",
        after(indexed, STREAM),
        "embedcli ingest --index {index} --rebuild",
        [
            [f"{STREAM} --whole --rebuild"],
            ["embedcli forget tickets --index {index}", "embedcli ingest --index {index} --rebuild"],
        ],
    ),
    Row(
        "look at what the command before the pipe says",
        indexed,
        "true | {program} ingest --index {index} --records - --name tickets",
        [[STREAM]],
    ),
    Row(
        "look at what the command says that makes the list; if there may be nothing to do, leave the run out then",
        indexed,
        "find {docs} -name none | {program} ingest --index {index} --files-from -",
        [
            ["find {docs} -name 0.txt | {program} ingest --index {index} --files-from -"],
            ["find {docs} -name none > {parent}/list", "test ! -s {parent}/list || exit 1"],
        ],
    ),
    Row(
        "write it to a file: `> changes.parquet`",
        indexed,
        "{on_a_terminal} {program} changes {index} --format parquet",
        [["{program} changes {index} --format parquet > {parent}/changes.parquet"]],
    ),
    Row(
        "empty what you load into, and give it everything with `--since 0`",
        after(twice, "rm {index}/changes/000001.parquet"),
        "embedcli changes {index} --since 7",
        [["embedcli changes {index} --since 0"]],
    ),
    Row(
        "`mv '{index_}/changes/000002.parquet' '{index_}/changes/000002.parquet'.damaged`: what it says is then loaded"
        " in full",
        with_a_damaged_list,
        "embedcli changes {index} --since 1",
        [
            [
                "mv {index}/changes/000002.parquet {index}/changes/000002.parquet.damaged",
                "embedcli changes {index} --since 0",
            ]
        ],
    ),
    Row(
        "`embedcli changes {index} --since 0` gives loaders everything; `sync` loads it itself",
        without_change_lists,
        "embedcli verify {index}",
        [
            ["embedcli changes {index} --since 0"],
            ["embedcli sync sqlite:{parent}/notes.db {index}"],
            [AGAIN, "embedcli verify {index}"],
        ],
        retold=True,
    ),
]


@pytest.mark.parametrize(**cases(ROWS))
def test_a_hint_is_given_in_its_state_and_helps(shop: Workshop, command: Command, row: Row, way: Sequence[str]) -> None:
    carry_out(row, way, shop, command)


@pytest.mark.parametrize("row", ROWS, ids=[ascii(row.hint[:60]) for row in ROWS])
def test_the_ways_type_what_the_hint_names(row: Row) -> None:
    assert_types_what_it_names(row)


@carries_out("`rm /srv/index/cache/part.search`: the next search makes it again")
def test_a_cache_that_is_removed_is_made_again(shop: Workshop, command: Command) -> None:
    """Nobody is shown this hint but by `--debug`: a search that meets the damage builds the file again itself."""
    indexed(shop)
    assert code_of(type_in(SEARCH, shop, command)) == 0
    (cache,) = shop.index.glob("cache/*.search")
    cache.write_bytes(b"")
    shell(DamagedCache(str(cache)).hint.split("`")[1], shop)
    assert not cache.exists()
    assert code_of(type_in(SEARCH, shop, command)) == 0 and cache.exists()
