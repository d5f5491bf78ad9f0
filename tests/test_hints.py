"""Every hint of the program is carried out in the state in which it is given, and it helps.

A row: the hint, the state, the command that gives it, and each way that the hint offers as the commands that it tells
to type. After each way the last command has exit code 0 or 3. Folders have blanks in their names: what is pasted into
a shell must work.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedcli.errors import RunStopped
from embedcli.index import lock
from embedcli.stores.open import STORES
from embedcli.vault.disk import Disk
from tests.carried_out.table import (
    CARRIED,
    Command,
    Row,
    assert_given,
    assert_types_what_it_names,
    carries_out,
    carry_out,
    cases,
    code_of,
    filled,
    type_in,
)
from tests.hint_states import (
    HERE,
    State,
    after,
    beside,
    forgotten,
    in_another_root,
    indexed,
    killed_first_run,
    more_open,
    nothing,
    of_a_newer_version,
    shell,
    ten_gone,
    ten_gone_below_a_quote,
    ten_without_text,
    three_generations,
    twice,
    two_names,
    unreadable,
    with_damage,
    with_records,
)
from tests.hints import templates
from tests.published import silent
from tests.unprivileged import as_nobody, give_to_nobody
from tests.workshop import Workshop, words

INGEST = "embedcli ingest {docs} --index {index}"
AGAIN = "embedcli ingest --index {index}"
LEAVE_OUT = "leave the flag out for the default"
TOML = "each line is `flag = value`, such as `dim = 256` or `exclude = ['*.log', 'old/']`"
SET = "printf 'dim = 16' > {parent}/embedcli.toml"
RECORDS = 'printf \'{{"text": "Some words."}}\\n\' | {program} ingest --index {index} --records - --name tickets'
LISTED = "printf '%s\\n' {docs}/part/0.txt > {parent}/list"
ROWS = [
    Row("name only one index", indexed, "embedcli status {index} --index {other}", [["embedcli status {index}"]]),
    Row(
        "see `embedcli status --help`",
        indexed,
        "embedcli status {index} --nosuch --json",
        [["embedcli status --help", "embedcli status {index} --json"]],
    ),
    Row(LEAVE_OUT, nothing, f"{INGEST} --device tpu", [[INGEST]]),
    Row(LEAVE_OUT, nothing, f"{INGEST} --gpus x", [[INGEST]]),
    Row("leave `--gpus` out", nothing, f"{INGEST} --workers ray://auto --gpus 0", [[INGEST]]),
    Row("leave the flag out to work on this machine alone", nothing, f"{INGEST} --workers auto", [[INGEST]]),
    Row(LEAVE_OUT, nothing, f"{INGEST} --gpu-memory 0", [[INGEST]]),
    Row(LEAVE_OUT, nothing, f"{INGEST} --batch-tokens 1", [[INGEST]]),
    *(
        Row(
            "700: only you; 750: your group reads it too",
            nothing,
            f"{INGEST} --mode {bad}",
            [[f"{INGEST} --mode 700"], [f"{INGEST} --mode 750"]],
        )
        for bad in ("rwx", "77")
    ),
    Row(
        "leave `--mode` out, or change it with `chmod -R u=rwX,g=rX,o= {index}`",
        indexed,
        f"{AGAIN} --mode 750",
        [[AGAIN], ["chmod -R u=rwX,g=rX,o= {index}", f"{AGAIN} --mode 750"]],
    ),
    Row(
        "give a number from 0 to 100, or FOLDER=NUMBER for one folder",
        indexed,
        f"{AGAIN} --max-gone all",
        [[f"{AGAIN} --max-gone 60"], [f"{AGAIN} --max-gone {{docs}}=60"]],
    ),
    Row("mend it in `{parent_}/embedcli.toml`", beside("dim = 'many'"), AGAIN, [[SET, AGAIN]]),
    Row("did you mean `dim`?", beside("dims = 16"), AGAIN, [[SET, AGAIN]]),
    Row(
        "keys are the long names of flags: see `embedcli ingest --help`",
        beside("zzz = 1"),
        AGAIN,
        [["embedcli ingest --help", SET, AGAIN]],
    ),
    Row(
        TOML,
        beside("dim"),
        AGAIN,
        [["printf \"dim = 16\\nexclude = ['*.log', 'old/']\" > {parent}/embedcli.toml", AGAIN]],
    ),
    Row(TOML, beside("dim = true"), AGAIN, [[SET, AGAIN]]),
    Row(TOML, beside("dim = [1]"), AGAIN, [[SET, AGAIN]]),
    Row(
        "name a file such as `embedcli.toml`",
        beside("dim = 16"),
        f"{AGAIN} --config ''",
        [[f"{AGAIN} --config {{parent}}/embedcli.toml"]],
    ),
    Row(
        "name another file with `--config`",
        beside("dim = 16"),
        f"{AGAIN} --config /no/file",
        [[f"{AGAIN} --config {{parent}}/embedcli.toml"]],
    ),
    Row(
        "name another file with `--log-file`",
        indexed,
        f"{AGAIN} --log-file /no/file",
        [["{program} ingest --index {index} --log-file {parent}/log", AGAIN]],
    ),
    Row(
        "`embedcli ingest --index {index}` reads the documents of damaged shards again",
        with_damage,
        "embedcli verify {index}",
        [[AGAIN, "embedcli verify {index}"]],
        retold=True,
    ),
    Row(
        "leave `--dim` out, add `--rebuild` to rebuild the index with it, or start another index with `--index`",
        indexed,
        f"{AGAIN} --dim 8",
        [[AGAIN], [f"{AGAIN} --dim 8 --rebuild"], ["embedcli ingest {docs} --index {other} --dim 8"]],
    ),
    Row("name the folder of the index", indexed, "embedcli status ''", [["embedcli status {index}"]]),
    Row("use `--max-tokens 256` or less", nothing, f"{INGEST} --max-tokens 999", [[f"{INGEST} --max-tokens 256"]]),
    Row(
        "use `--overlap 16` or less",
        nothing,
        f"{INGEST} --max-tokens 64 --overlap 30",
        [[f"{INGEST} --max-tokens 64 --overlap 16"]],
    ),
    Row("use `--dim 384` or less", nothing, f"{INGEST} --dim 999", [[f"{INGEST} --dim 384"]]),
    Row("leave `--dim` out for the default", nothing, f"{INGEST} --dim 0", [[INGEST]]),
    Row("leave `--max-tokens` out for the default", nothing, f"{INGEST} --max-tokens 3", [[INGEST]]),
    Row("leave it out for the default of 256", nothing, f"{INGEST} --max-file-size 0", [[INGEST]]),
    Row(
        "`embedcli rollback --to 1 --index {index}` makes generation 1 current",
        after(twice, "rm {index}/current/probe.npy {index}/current/documents.parquet"),
        AGAIN,
        [["embedcli rollback --to 1 --index {index}", AGAIN]],
    ),
    Row(
        "`embedcli rollback --to 2 --index {index}` makes generation 2 current",
        after(twice, "rm {index}/current"),
        AGAIN,
        [["embedcli rollback --to 2 --index {index}", AGAIN]],
    ),
    Row(
        "restore the folder from a copy with its links (`cp -a`, `rsync -a`), or start a new one with `--index`",
        after(indexed, "cp -a {index} {parent}/saved", "rm {index}/current/manifest.json"),
        AGAIN,
        [["rm -r {index}", "cp -a {parent}/saved {index}", AGAIN], ["embedcli ingest {docs} --index {other}"]],
    ),
    Row(
        "make one with `embedcli ingest SOURCE --index {index}`",
        nothing,
        "embedcli status {index}",
        [[INGEST, "embedcli status {index}"]],
    ),
    Row(
        "continue with `embedcli ingest --index {index}`",
        killed_first_run,
        "embedcli verify {index}",
        [[AGAIN, "embedcli verify {index}"]],
    ),
    Row(
        "restore them, or if they are right as they are, run again with `--max-gone 100`",
        ten_without_text,
        AGAIN,
        [["cp {parent}/text {docs}/part/0.txt", AGAIN], [f"{AGAIN} --max-gone 100"]],
    ),
    Row("name a folder with `--index`", nothing, "embedcli ingest {docs} --index {docs}/part/0.txt", [[INGEST]]),
    Row(
        "name an empty or a new folder with `--index`",
        nothing,
        "embedcli ingest {docs} --index {docs}/part",
        [[INGEST], ["mkdir {other}", "embedcli ingest {docs} --index {other}"]],
    ),
    Row("name what to index: `embedcli ingest docs/ --index INDEX`", nothing, AGAIN, [[INGEST]]),
    Row("name what to index: `embedcli ingest docs/ --index {index}`", forgotten, AGAIN, [[INGEST]]),
    Row(
        "mount what is missing, or if they were deleted, run again with `--max-gone '{docs_}=100'`",
        after(indexed, "mv {docs}/part {parent}/away"),
        AGAIN,
        [["mv {parent}/away {docs}/part", AGAIN], [f"{AGAIN} --max-gone {{docs}}=100"]],
    ),
    Row(
        "mount what is missing, or if they were deleted, add `--max-gone '{docs_}/part=100'`",
        ten_gone,
        f"{AGAIN} --rebuild",
        [[f"{AGAIN} --rebuild --max-gone {{docs}}/part=100"]],
    ),
    Row(
        "mount what is missing, or if they were deleted, add `--max-gone {part_all}`",
        ten_gone_below_a_quote,
        f"{AGAIN} --rebuild",
        [[f"{AGAIN} --rebuild --max-gone {{part_all}}"]],
    ),
    Row(
        "check the path; hidden files and what `--include`, `--exclude`, `.embedcliignore` leave out do not count",
        nothing,
        f"{INGEST} --include no*",
        [[f"{INGEST} --include ''"], [f"{INGEST} --include '*.txt' --exclude ''"]],
    ),
    Row(
        "mend `--include` and `--exclude`; an empty pattern, `''`, forgets those that are remembered",
        indexed,
        f"{AGAIN} --exclude '*'",
        [[f"{AGAIN} --exclude ''"], [f"{AGAIN} --include '*.txt'"]],
    ),
    Row(
        "name sources that can be read",
        unreadable,
        INGEST,
        [["printf 'A line.' > {docs}/a.txt", "embedcli ingest {docs}/a.txt --index {index}"]],
    ),
    Row(
        "repeat the flag: `--include '*.pdf' --include '*.txt'`; a comma in a name is written `\\,`",
        nothing,
        f"{INGEST} --include '*.pdf,*.txt'",
        [
            [f"{INGEST} --include '*.pdf' --include '*.txt'"],
            ["touch {docs}/a,b.txt", f"{INGEST} --include 'a\\,b*' --include '*.txt'"],
        ],
    ),
    Row(
        "try `--include '*.pdf'`",
        nothing,
        f"{INGEST} --include '!'",
        [["cp {samples}/cjk.pdf {docs}/a.pdf", f"{INGEST} --include '*.pdf'"]],
    ),
    Row(
        "name the folder, or leave out `--include`, `--exclude`, `--gitignore` and `--records`",
        nothing,
        "embedcli ingest {docs}/part/0.txt --index {index} --exclude '*.md' --include '*.txt' --gitignore"
        " --records '*.csv'",
        [["embedcli ingest {docs}/part/0.txt --index {index}"], [f"{INGEST} --exclude '*.md'"]],
    ),
    Row("name the folder of the documents", indexed, "embedcli ingest {index} --index {index}", [[INGEST]]),
    Row(
        "name the root: `embedcli ingest {docs} --index {index} ...`",
        indexed,
        "embedcli ingest {docs}/part --index {index} --exclude '*.md'",
        [[f"{INGEST} --exclude '*.md'"]],
    ),
    Row(
        "mount it; if it is elsewhere now, `embedcli moved {docs} NEW --index {index}`; if it is to leave the index,"
        " `embedcli forget {docs} --index {index}`",
        after(indexed, "mv {docs} {parent}/away"),
        AGAIN,
        [
            ["mv {parent}/away {docs}", AGAIN],
            ["embedcli moved {docs} {parent}/away --index {index}", AGAIN],
            ["embedcli forget {docs} --index {index}", "embedcli status {index}"],
        ],
    ),
    Row(
        "`embedcli forget {docs} --index {index}`, then the same command again: the vectors that are known are used"
        " again",
        two_names,
        AGAIN,
        [["embedcli forget {docs} --index {index}", AGAIN]],
    ),
    Row(
        "check the path, or mount the folder it lies in",
        nothing,
        "embedcli ingest {parent}/docz --index {index}",
        [[INGEST], ["mv {docs} {parent}/docz", "embedcli ingest {parent}/docz --index {index}"]],
    ),
    Row(
        "name one of its roots: `{docs_}`",
        indexed,
        "embedcli forget {other} --index {index}",
        [["embedcli forget {docs} --index {index}"]],
    ),
    Row(
        "`chmod -R go-rwx {index}`",
        more_open,
        "embedcli doctor {index} --model minilm",
        [["chmod -R go-rwx {index}", "embedcli verify {index}"]],
        retold=True,
    ),
    Row(
        "name the new path second: `embedcli moved OLD NEW`",
        indexed,
        "embedcli moved {docs} {docs} --index {index}",
        [["cp -r {docs} {other}", "embedcli moved {docs} {other} --index {index}"]],
    ),
    Row(
        "name the new path of the root itself",
        indexed,
        "embedcli moved {docs} {docs}/part/0.txt --index {index}",
        [["cp -r {docs} {other}", "embedcli moved {docs} {other} --index {index}"]],
    ),
    Row(
        "complete are 1, 2: `embedcli rollback --to N --index {index}`",
        three_generations,
        "embedcli rollback {index} --to 9",
        [["embedcli rollback --to 1 --index {index}"], ["embedcli rollback --to 2 --index {index}"]],
    ),
    Row(
        "no other generation is complete; `embedcli ingest --keep-generations N` keeps more of them",
        indexed,
        "embedcli rollback {index}",
        [["touch {docs}/b.txt", f"{AGAIN} --keep-generations 3", "embedcli rollback {index}"]],
    ),
    Row(
        "look at it with `ls -ld '{docs_}/loop'`",
        after(nothing, "ln -s loop {docs}/loop"),
        "embedcli ingest {docs}/loop --index {index}",
        [["ls -ld {docs}/loop", INGEST]],
    ),
    Row("name another folder with `--index`", nothing, f"{INGEST}\udcff", [["embedcli ingest {docs} --index {other}"]]),
    Row(
        "what is only pictures needs OCR first",
        after(nothing, "cp {samples}/unreadable/scan.pdf {parent}"),
        "embedcli ingest {parent}/scan.pdf --index {index}",
        [["cp {samples}/cjk.pdf {parent}/scan.pdf", "embedcli ingest {parent}/scan.pdf --index {index}"]],
    ),
    Row(
        "mend their permissions or mount what is missing, then run the same command again",
        after(indexed, "mv {docs}/part/0.txt {parent}", "ln -s nowhere {docs}/part/0.txt"),
        f"{AGAIN} --rebuild",
        [["mv {parent}/0.txt {docs}/part/0.txt", f"{AGAIN} --rebuild"]],
    ),
    Row(
        "if they are the same, forget where they were: `embedcli forget {part} --index {index}`",
        after(
            indexed, "cp -r {docs}/part {docs}/copy", "{program} ingest --index {index} --quiet", "rm -r {docs}/part"
        ),
        "embedcli moved {docs}/part {docs}/copy --index {index}",
        [["embedcli forget {docs}/part --index {index}", AGAIN]],
    ),
    Row(
        "`embedcli ingest {alone} --index {index}` reads it: known vectors are reused",
        after(indexed, "mv {docs}/part/0.txt {alone}"),
        "embedcli moved {docs}/part/0.txt {alone} --index {index}",
        [["embedcli ingest {alone} --index {index}"]],
    ),
    Row(
        "give a time of the day, `06:00`, or `2026-01-31T06:00`",
        indexed,
        f"{AGAIN} --deadline soon",
        [[f"{AGAIN} --deadline 06:00"], [f"{AGAIN} --deadline 2999-01-31T06:00"]],
    ),
    Row(
        "give hours, minutes or seconds: `4h`, `90m`, `1h30m`",
        indexed,
        f"{AGAIN} --time-limit long",
        [[f"{AGAIN} --time-limit {limit}"] for limit in ("4h", "90m", "1h30m")],
    ),
    Row(
        "`--nice 10` is what batch jobs use",
        indexed,
        f"{AGAIN} --nice 99",
        [["{program} ingest --index {index} --nice 10", AGAIN]],
    ),
    Row("add `--records -`", indexed, f"{AGAIN} --name tickets", [[RECORDS, AGAIN]]),
    Row("add one: `--records - --name tickets`", indexed, f"{AGAIN} --records -", [[RECORDS, AGAIN]]),
    Row("use letters, such as `--name tickets`", indexed, f"{AGAIN} --records - --name /", [[RECORDS, AGAIN]]),
    Row(
        "add `--files-from -`, or leave `-0` out",
        indexed,
        f"{AGAIN} -0",
        [["printf '%s\\0' {docs}/part/0.txt | {program} ingest --index {index} --files-from - -0", AGAIN], [AGAIN]],
    ),
    Row(
        "give them to one run each",
        after(indexed, LISTED),
        f"{INGEST} --files-from {{parent}}/list",
        [[INGEST, f"{AGAIN} --files-from {{parent}}/list"]],
    ),
    Row(
        "check its path; `--files-from -` reads the list on stdin",
        indexed,
        f"{AGAIN} --files-from /no/list",
        [
            [LISTED, f"{AGAIN} --files-from {{parent}}/list"],
            [LISTED, "{program} ingest --index {index} --files-from - < {parent}/list", AGAIN],
        ],
    ),
    Row(
        "add `-0`, as for `find -print0`",
        after(indexed, "find {docs} -name '*.txt' -print0 > {parent}/list"),
        f"{AGAIN} --files-from {{parent}}/list",
        [["find {docs} -name '*.txt' -print0 > {parent}/list", f"{AGAIN} --files-from {{parent}}/list -0"]],
    ),
    Row("this index has no roots", forgotten, "embedcli forget {docs} --index {index}", [[INGEST]]),
    *(
        Row(hint, after(twice, *lines), "embedcli verify {index}", [[*way, "embedcli verify {index}"]], retold=True)
        for hint, lines, way in (
            (
                "`embedcli ingest --index {index}` makes the probe set again",
                ["rm {index}/generations/*/probe.npy", "rm -r {index}/generations/000001"],
                [AGAIN, "rm -r {index}/generations/000002"],
            ),
            (
                "`rm -r '{index_}/generations/000001'` removes a generation that is no way back; the current one needs"
                " nothing of it",
                ["rm {index}/generations/000001/documents.parquet"],
                ["rm -r {index}/generations/000001"],
            ),
            (
                "`rm -r '{index_}/generations/.DS_Store'`: the index has nothing in it",
                ["touch {index}/generations/.DS_Store"],
                ["rm -r {index}/generations/.DS_Store"],
            ),
            (
                "`rm -r '{index_}/generations/000002/vectors/@eaDir'`: the index has nothing in it",
                ["mkdir {index}/generations/000002/vectors/@eaDir"],
                ["rm -r {index}/generations/000002/vectors/@eaDir"],
            ),
            (
                "`mv '{index_}/changes/000001.parquet' '{index_}/changes/000001.parquet'.damaged`: loaders that need it"
                " load everything again",
                ["truncate -s 100 {index}/changes/000001.parquet"],
                ["mv {index}/changes/000001.parquet {index}/changes/000001.parquet.damaged"],
            ),
            (
                "`rm -r '{index_}/cache'`: the next search makes it again",
                ["truncate -s -1 {index}/cache/*.search"],
                ["rm -r {index}/cache", "embedcli search words {index} --mode words"],
            ),
        )
    ),
    Row(
        "`rm '{index_}/keys/part-7.npy'`: it spares no more than computing some vectors again",
        after(twice, "touch {index}/keys/part-7.npy"),
        "embedcli verify {index}",
        [["rm {index}/keys/part-7.npy", "embedcli verify {index}"], [AGAIN, "embedcli verify {index}"]],
        retold=True,
    ),
    Row(
        "`embedcli verify {index}` names what is damaged",
        after(with_damage, "cp -r {docs} {other}"),
        "embedcli moved {docs} {other} --index {index}",
        [["embedcli verify {index}"]],
    ),
    Row(
        "`embedcli forget {docs} --index {index}`, then `embedcli ingest {moved} --index {index}`:"
        " known vectors are reused",
        in_another_root,
        "embedcli moved {docs} {moved} --index {index}",
        [["embedcli forget {docs} --index {index}", "embedcli ingest {moved} --index {index}"]],
    ),
    Row(
        "run the same command again; if it fails again, check the disk",
        after(indexed, "rm -r {index}/keys", "touch {index}/keys"),
        AGAIN,
        [["rm {index}/keys", AGAIN]],
    ),
    Row(
        "`embedcli verify` lists all damage; check the disk",
        with_damage,
        "embedcli rows {index}",
        [["embedcli verify {index}", AGAIN, "embedcli rows {index}"]],
    ),
    Row(
        "name the file that it lies in",
        with_records,
        "embedcli forget {docs}/t.jsonl#3 --index {index}",
        [["embedcli forget {docs}/t.jsonl --index {index}"]],
    ),
    Row(
        "name a folder or a file first",
        after(indexed, RECORDS, "mv {docs} {other}"),
        "embedcli moved tickets {other} --index {index}",
        [["embedcli moved {docs} {other} --index {index}"]],
    ),
]

NOT_HERE = {
    **dict.fromkeys(
        (
            "upgrade with `pip install --upgrade embedcli`",
            "upgrade the server to Qdrant 1.16 or newer",
            "upgrade the server to Milvus 2.5 or newer",
            *(f"`apt install {package}`" for package in ("gcc", "g++", "python3.11-dev")),
            "`pip install ninja`",
        ),
        "installs software from a registry or on another machine",
    ),
    "raise the quota, then run the same command again: finished documents are kept": "needs a disk with quotas",
    "put the index elsewhere with `--index`: ext4, xfs, btrfs, zfs and APFS have them, FAT does not": (
        "needs a disk without links"
    ),
    "for a new index: `--max-tokens 512`": "needs a model of 16 GB; planned in test_settings.py",
    "`export EMBEDCLI_CACHE=/var/cache/embedcli`": "needs a user without a home",
    "close other programs, or use fewer `--threads`": "needs a machine whose memory ends in OpenVINO",
    "make room (`free`, `ulimit -u`, `df /tmp` show where), then run the same command again": (
        "needs a machine that starts no other process"
    ),
    **dict.fromkeys(
        (
            "name another model with `--model`",
            "name the folder of an index, or look at it with `embedcli status`",
            "ask for something",
        ),
        "no command comes to it: what it is about is refused before, with a hint that is carried out",
    ),
}
"""Hints that no test here can carry out, each with the reason. (Those with an extra of ours: see below.)"""


# ---- carrying them out


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "a folder", index="the index")


@pytest.mark.parametrize(**cases(ROWS))
def test_a_hint_is_given_in_its_state_and_helps(shop: Workshop, command: Command, row: Row, way: Sequence[str]) -> None:
    carry_out(row, way, shop, command)


@pytest.mark.parametrize("row", ROWS, ids=[row.hint[:60] for row in ROWS])
def test_the_ways_type_what_the_hint_names(row: Row) -> None:
    assert_types_what_it_names(row)


def carried() -> set[str]:
    """The hints that a test of this file or of the folder `carried_out` carries out."""
    for path in sorted((HERE / "carried_out").glob("test_*.py")):
        importlib.import_module(f"tests.carried_out.{path.stem}")
    return CARRIED


INSTALLS = re.compile(r"pip install (?:--force-reinstall )?'embedcli\[([\w.*-]+)\]'")


def test_every_hint_of_the_program_is_carried_out() -> None:
    listed = [*carried(), *NOT_HERE]
    lacking = [
        f"{module}: {pattern}"
        for pattern, module in templates().items()
        if not INSTALLS.search(pattern.replace("\\", "")) and not any(re.fullmatch(pattern, hint) for hint in listed)
    ]
    assert not lacking, "each needs a row, or a test with `carries_out`, that makes its state and types what it says"


def test_the_extras_that_hints_install_exist() -> None:
    """They are not installed here, for that needs a registry."""
    extras = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    hints = [pattern.replace("\\", "") for pattern in templates()]
    named = {found for hint in hints for found in INSTALLS.findall(hint)} - {".*"}
    assert {"gpu", "cpu", "minilm", "ray", "s3", "serve"} <= named <= extras.keys()
    assert {extra for _, extra in STORES.values()} <= extras.keys()


@carries_out("put a value with a quote in it into the other quotes")
def test_a_quote_in_a_variable_is_put_into_the_other_quotes(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(shop)
    monkeypatch.setenv("EMBEDCLI_EXCLUDE", "it's/*")
    given = type_in("embedcli ingest --index {index}", shop, command)
    assert_given("put a value with a quote in it into the other quotes", given, shop)
    monkeypatch.setenv("EMBEDCLI_EXCLUDE", '"it\'s/*"')
    assert code_of(type_in("embedcli ingest --index {index}", shop, command)) == 0


@carries_out("free some space, then run the same command again")
def test_a_move_that_lacked_space_is_made(shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(shop)
    shell("cp -r {docs} {other}", shop)
    line = "embedcli moved {docs} {other} --index {index}"
    with monkeypatch.context() as patched:
        patched.setattr(Disk, "has_room", lambda *_: False)
        assert_given("free some space, then run the same command again", type_in(line, shop, command), shop)
    assert code_of(type_in(line, shop, command)) == 0


LOCAL = "put the index on a local disk (ext4, xfs) with `--index`"


@carries_out(LOCAL)
def test_doctor_is_content_with_another_disk(shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    nothing(shop)
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", no_locks)
        assert_given(LOCAL, type_in("embedcli doctor {index} --model minilm", shop, command), shop, retold=True)
    ran = type_in("embedcli doctor {other} --model minilm", shop, command)
    assert code_of(ran) == 0 and LOCAL not in ran.output


@carries_out("wait for it to end, then run the same command again")
def test_a_run_that_waited_for_another_one_works(shop: Workshop, command: Command) -> None:
    indexed(shop)
    with lock.hold(shop.index, Disk(), silent):
        assert_given("wait for it to end, then run the same command again", type_in(AGAIN, shop, command), shop)
    assert code_of(type_in(AGAIN, shop, command)) == 0


@carries_out("run the same command again")
def test_a_run_that_another_one_has_overtaken_works_again(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network filesystem whose locks mean nothing: the lock is another run's before this one publishes."""
    indexed(shop)
    shop.write("new.txt", words(60, 5))
    with monkeypatch.context() as patched:
        patched.setattr(lock.Lock, "held", lambda _: False)
        assert_given("run the same command again", type_in(AGAIN, shop, command), shop)
    assert code_of(type_in(AGAIN, shop, command)) == 0


@carries_out("run the same command again: it continues where it stopped")
def test_a_run_that_was_stopped_goes_on(shop: Workshop, command: Command) -> None:
    killed_first_run(shop)
    assert RunStopped(15).hint == "run the same command again: it continues where it stopped"
    assert code_of(type_in(AGAIN, shop, command)) == 0


CLOSED: dict[str, tuple[State, str, str]] = {
    "check its permissions": (indexed, "{index}", AGAIN),
    "mount it or mend its permissions, then run the same command again": (indexed, "{docs}/part", f"{AGAIN} --rebuild"),
    "look at it with `ls -la '{docs_}'`": (nothing, "{docs}", INGEST),
}
"""Hints about a folder that this user may not read: the state, the folder, the command."""


CARRIED.update(CLOSED)
CARRIED.add("look at it with `ls -la '/folder'`")


@pytest.mark.parametrize("hint", CLOSED)
def test_the_hints_of_a_closed_folder_help_a_user_whom_permissions_bind(
    shop: Workshop, command: Command, hint: str
) -> None:
    state, folder, line = CLOSED[hint]
    state(shop)
    type_in(f"{AGAIN} --reread", shop, command)  # what is imported on the way has to be read by root
    give_to_nobody(shop.index.parent)
    shell(f"chmod 000 {folder}", shop)

    def is_given() -> None:
        given = type_in(line, shop, command)
        assert getattr(given.exception, "hint", given.output) == filled(hint, shop)

    as_nobody(shop.docs.parent, is_given)
    shell(f"chmod 755 {folder} && ls -la {folder}", shop)
    assert code_of(type_in(line, shop, command)) == 0


def test_an_index_of_a_newer_version_names_the_upgrade(shop: Workshop, command: Command) -> None:
    of_a_newer_version(shop)
    assert command("status", shop.index).exception.hint == "upgrade with `pip install --upgrade embedcli`"
