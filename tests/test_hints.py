"""Every hint of the program is carried out in the state in which it is given, and it helps.

A row: the hint, the state, the command that gives it, and each way that the hint offers as the commands that it tells
to type. After each way the last command has exit code 0 or 3. Folders have blanks in their names: what is pasted into
a shell must work.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import storage_error
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
    places,
    shell,
    ten_gone,
    three_generations,
    twice,
    two_names,
    unreadable,
    with_damage,
)
from tests.hints import templates
from tests.unprivileged import as_nobody, give_to_nobody
from tests.workshop import Workshop

Command = Callable[..., Any]


@dataclass(frozen=True)
class Row:
    """`hint` with {names} of places; `ways`: each a list of commands. `retold`: the hint is printed, not raised."""

    hint: str
    state: State
    command: str
    ways: Sequence[Sequence[str]]
    retold: bool = False


INGEST = "embedcli ingest {docs} --index {index}"
AGAIN = "embedcli ingest --index {index}"
LEAVE_OUT = "leave the flag out for the default"
TOML = "each line is `flag = value`, such as `dim = 256` or `exclude = ['*.log', 'old/']`"
SET = "printf 'dim = 16' > {parent}/embedcli.toml"
RECORDS = 'printf \'{{"text": "Some words."}}\\n\' | {program} ingest --index {index} --records - --name tickets'
LISTED = "printf '%s\\n' {docs}/part/0.txt > {parent}/list"
ROWS = [
    Row("name only one index", indexed, "embedcli status {index} --index {other}", [["embedcli status {index}"]]),
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
        "mount what is missing, or if they were deleted, run again with `--max-gone 100`",
        after(indexed, "mv {docs}/part {parent}/away"),
        AGAIN,
        [["mv {parent}/away {docs}/part", AGAIN], [f"{AGAIN} --max-gone 100"]],
    ),
    Row(
        "mount what is missing, or if they were deleted, add `--max-gone '{docs_}/part=100'`",
        ten_gone,
        f"{AGAIN} --rebuild",
        [[f"{AGAIN} --rebuild --max-gone {{docs}}/part=100"]],
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
        "leave out `--include`, `--exclude` and `--gitignore`, or name the folder",
        nothing,
        "embedcli ingest {docs}/part/0.txt --index {index} --exclude '*.md' --include '*.txt' --gitignore",
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
]

ELSEWHERE = {
    "engines/": "need a card, or an engine that fails: tests/engines and tests/verbs/doctor make fakes of both",
    "vault/": "are about buckets: tests/vault makes servers that refuse",
    "index/mirror/": "are about an index in a vault: tests/index/mirror, with several machines",
    "verbs/doctor/": "tell to install packages or to use another disk: tests/verbs/doctor/test_machine.py",
    **dict.fromkeys(
        ("pipes/", "cli/pipes.py", "verbs/embed.py", "verbs/rows.py", "index/where.py"),
        "are about stdin, stdout and columns: tests/pipes, tests/verbs/test_embed.py and test_rows.py",
    ),
    **dict.fromkeys(
        ("run/containers/", "sources/streams.py"),
        "are about records that are gone: tests/run/test_containers.py",
    ),
    **dict.fromkeys(
        ("search/", "cli/search.py", "verbs/recut.py", "verbs/dry_run.py"),
        "are not carried out yet: their states need an index that can be searched, or a file of queries",
    ),
    "cluster/": "need a cluster, or workers that fail: tests/cluster and tests/cli/test_workers.py",
    "models/": "need a hub or another model: tests/models/test_resolve.py and tests/cli/test_main.py",
}
"""Modules whose hints are about machines that a test cannot have."""

NOT_RUN = {
    "write it to a folder, and copy that into the bucket": "cli/test_bucket.py",
    "name one with `EMBEDCLI_CACHE`": "cli/test_bucket.py",
    "use a shorter prefix": "cli/test_bucket.py",
    "such as `--workers ray://auto,min=1,max=8`": "cli/test_workers.py",
    "name a shared folder with `--index`, or leave `--workers` out": "cli/test_workers.py",
    "name one: `s3://BUCKET/FOLDER`": "sources/buckets/test_walk.py",
    "name its folder: `embedcli ingest s3://b/docs --include /a.txt`": "sources/buckets/test_walk.py",
    "name its folder as a SOURCE, with `--include` for what you want of it": "test_buckets.py",
    "write it to a file: `> changes.parquet`": "cli/test_sync.py",
    "empty what you load into, and give it everything with `--since 0`": "cli/test_sync.py",
    "run the same command again; `embedcli verify /srv/index` looks for damage": "index/test_change_lists.py",
    "`mv /srv/index/changes/000002.parquet /srv/index/changes/000002.parquet.damaged`: what it says is then loaded in"
    " full": "index/test_change_lists.py",
    "look at what the command says that makes the list; if there may be nothing to do, leave the run out then": (
        "sources/test_lists.py"
    ),
    "name another table with `--into NAME`, or let this index take its place with `--replace`": (
        "stores/test_follow.py"
    ),
    "run the same command again when nobody else writes to it": "stores/test_follow.py",
    "wait until it has ended": "stores/test_follow.py",
    "run the same command again: it goes on with the current generation": "stores/test_follow.py",
    "sync as the user who owns the index": "stores/test_follow.py",
    "install it with `pip install 'embedcli[serve]'`": "serving/test_server.py",
    "name it: `embedcli serve INDEX --mcp`": "serving/test_mcp.py",
    "leave `--host` out": "serving/test_server.py",
    "name another one with `--port`; 0 takes a free one": "serving/test_server.py",
    "name one above 1023 with `--port`": "serving/test_server.py",
    "give a key, or leave it out": "serving/test_server.py",
    "set a key: `export EMBEDCLI_API_KEY=$(openssl rand -hex 16)`, or leave `--host` out": "serving/test_server.py",
    "install it with `pip install 'embedcli[qdrant]'`": "stores/test_target.py",
    "make it first": "stores/test_target.py",
    "type sqlite:./FILE.db": "stores/test_target.py",
    "name one of: sqlite:./FILE.db": "stores/test_target.py",
    "use 3 to 48 letters, digits and underscores, a letter first": "stores/test_target.py",
    "name another table with `--into NAME`": "stores/test_traps.py",
    "the same command goes on where this one ended; what the target remembers is unchanged": "stores/test_kills.py",
    "install pgvector on the server, then let its administrator type `create extension vector`": (
        "stores/test_traps.py"
    ),
    "upgrade the server to Qdrant 1.16 or newer": "stores/test_traps.py",
    "free some space, then run the same command again: finished documents are kept": "test_storage_faults.py",
    "raise the quota, then run the same command again: finished documents are kept": "test_storage_faults.py",
    "free some space, then run the same command again": "test_storage_faults.py",
    "free some space, or put the index on another disk with `--index`": "test_storage_faults.py",
    "the filesystem is read-only; put the index elsewhere with `--index`": "test_storage_faults.py",
    "put the index elsewhere with `--index`: ext4, xfs, btrfs, zfs and APFS have them, FAT does not": (
        "test_storage_faults.py"
    ),
    "run the same command again: it continues where it stopped": "cli/test_main.py",
    "wait for it to end, then run the same command again": "cli/test_main.py",
    "name the file that it lies in": "verbs/test_forget.py",
    "name a folder or a file first": "verbs/test_moved.py",
    "run the same command again": "index/test_generations.py",
    "use `--max-tokens 22` or more": "reading/test_chunker.py",
    "`embedcli verify` lists all damage; check the disk": "index/test_damage.py",
    "give this user the right to write there, e.g. `chown -R $USER /folder`": "test_hints.py",
    "upgrade with `pip install --upgrade embedcli`": "test_hints.py",
    "check its permissions": "test_hints.py",
    "mount it or mend its permissions, then run the same command again": "test_hints.py",
    "look at it with `ls -la '/folder'`": "test_hints.py",
    "stop the run on `somewhere` with `kill 1`: finished documents are kept": "verbs/test_unlock.py",
}
"""Hints of states that no command makes: a fault of the disk, a run that is at work, a folder of another user. Each
with the tests that make the state."""


# ---- carrying them out


def code_of(ran: Any) -> int:
    return int(getattr(ran.exception, "exit_code", ran.exit_code))


def type_in(line: str, shop: Workshop, command: Command) -> Any:
    """A command as it is pasted into a shell."""
    if not line.startswith("embedcli "):
        return shell(line, shop)
    return command(*shlex.split(line.format(**places(shop)))[1:])


CASES = [(row, way) for row in ROWS for way in row.ways]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "a folder", index="the index")


@pytest.mark.parametrize(("row", "way"), CASES, ids=[f"{row.hint[:60]} -> {way[-1][:60]}" for row, way in CASES])
def test_a_hint_is_given_in_its_state_and_helps(shop: Workshop, command: Command, row: Row, way: Sequence[str]) -> None:
    row.state(shop)
    given = type_in(row.command, shop, command)
    expected = _filled(row.hint, shop)
    if row.retold:
        assert expected in given.output
    else:
        assert getattr(given.exception, "hint", given.output) == expected
    for line in way:
        ran = type_in(line, shop, command)
    assert code_of(ran) in (0, 3), ran.exception or ran.output


def _filled(hint: str, shop: Workshop) -> str:
    for name, place in places(shop).items():
        hint = hint.replace(f"{{{name}}}", place)
    return hint


@pytest.mark.parametrize("row", ROWS, ids=[row.hint[:60] for row in ROWS])
def test_the_ways_type_what_the_hint_names(row: Row) -> None:
    typed = " ".join([row.command, *(line for way in row.ways for line in way)])
    for piece in re.findall(r"`([^`]+)`", row.hint):
        for word in piece.split():
            if word.startswith(("-", "embedcli", "chmod", "ls")) and word != "-a":
                assert word in typed, word


def test_every_hint_of_the_program_stands_in_the_table() -> None:
    listed = [row.hint for row in ROWS] + list(NOT_RUN)
    lacking = [
        f"{module}: {pattern}"
        for pattern, module in templates().items()
        if not module.startswith(tuple(ELSEWHERE)) and not any(re.fullmatch(pattern, hint) for hint in listed)
    ]
    assert not lacking, "each needs a row in ROWS, with its state and what is typed then"
    for test in NOT_RUN.values():
        assert (HERE / test).exists(), test


def test_the_hint_of_a_folder_of_another_user_is_a_command_that_works(shop: Workshop) -> None:
    nothing(shop)
    hint = storage_error(PermissionError(errno.EACCES, "denied"), shop.docs / "file").hint
    environment = {**os.environ, "USER": str(os.getuid())}
    subprocess.run(hint.split("`")[1], shell=True, check=True, env=environment)


CLOSED: dict[str, tuple[State, str, str]] = {
    "check its permissions": (indexed, "{index}", AGAIN),
    "mount it or mend its permissions, then run the same command again": (indexed, "{docs}/part", f"{AGAIN} --rebuild"),
    "look at it with `ls -la '{docs_}'`": (nothing, "{docs}", INGEST),
}
"""Hints about a folder that this user may not read: the state, the folder, the command."""


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
        assert getattr(given.exception, "hint", given.output) == _filled(hint, shop)

    as_nobody(shop.docs.parent, is_given)
    shell(f"chmod 755 {folder} && ls -la {folder}", shop)
    assert code_of(type_in(line, shop, command)) == 0


def test_an_index_of_a_newer_version_names_the_upgrade(shop: Workshop, command: Command) -> None:
    of_a_newer_version(shop)
    assert command("status", shop.index).exception.hint == "upgrade with `pip install --upgrade embedcli`"
