"""Real pipes: what other programs write, through a shell, into the real command line.

In: bash, zstd, jq, and PostgreSQL's own server and psql where they are installed. Not here: lists of files
(sources/test_lists.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.test_main import QUICK, QUIET
from tests.workshop import words

POSTGRES = Path(shutil.which("pg_ctl") or next(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), "none")).parent


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = command.replace("embedcli ", f"{' '.join(QUICK)} ")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, env={**QUIET, **environment}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "index/current/vectors").to_pylist()
    return {row["path"]: row for row in found}


def write(path: Path, count: int) -> None:
    lines = (json.dumps({"id": n, "text": words(8, n), "status": "open"}) for n in range(count))
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_zstd_into_a_named_stream(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", 300)
    subprocess.run(["zstd", "-q", "t.jsonl"], cwd=tmp_path, check=True)
    line = "zstd -dc t.jsonl.zst | embedcli ingest --records - --name tickets --index index --dim 16 --json"
    made = shell(line, tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["sources"]["new"] == 301 and len(rows(tmp_path)) == 300
    again = shell(line, tmp_path)
    assert again.returncode == 0 and "301 unchanged, nothing to do" in again.stderr


@pytest.mark.parametrize("stdin", ["<&-", "0>/dev/null"], ids=["closed", "as nohup leaves it"])
def test_a_stdin_that_cannot_be_read_is_said_and_nothing_is_done(tmp_path: Path, stdin: str) -> None:
    write(tmp_path / "t.jsonl", 3)
    assert shell("embedcli ingest t.jsonl --index index --dim 16", tmp_path).returncode == 0
    commands = ("ingest --records - --name tickets", "ingest --files-from -", "search -", "serve --mcp")
    for command in commands:
        ran = shell(f"embedcli {command} --index index {stdin}", tmp_path)
        assert ran.returncode == 15, f"{command}: {ran.stderr}"
        assert "cannot read stdin: it is" in ran.stderr and "Traceback" not in ran.stderr
    assert len(rows(tmp_path)) == 3


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_jq_chooses_the_fields_and_a_whole_stream_is_all_there_is(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", 9)
    into = "embedcli ingest --records - --name tickets --whole --text-field body --id-field nr --index index --dim 16"
    assert shell(f"jq -c '{{nr: .id, body: .text}}' t.jsonl | {into}", tmp_path).returncode == 0
    assert shell(f"jq -c 'select(.id < 7) | {{nr: .id, body: .text}}' t.jsonl | {into}", tmp_path).returncode == 0
    assert rows(tmp_path).keys() == {f"tickets#{n}" for n in range(7)}


def test_a_pattern_makes_records_of_tables_and_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.csv").write_text("nr,subject,body,team\n7,Light,It blinks,hub\n8,Door,,\n")
    flags = "--records '*.csv' --text-field subject --text-field body --id-field nr --label-fields --meta-field team"
    assert shell(f"embedcli ingest docs {flags} --index index --dim 16", tmp_path).returncode == 0
    found = rows(tmp_path)
    assert (
        found["a.csv#7"]["text"] == "subject: Light\n\nbody: It blinks" and found["a.csv#7"]["meta"] == '{"team":"hub"}'
    )
    assert found["a.csv#8"]["text"] == "subject: Door"
    (tmp_path / "docs/b.csv").write_text("nr,subject\n9,Roof\n")
    assert shell("embedcli ingest --index index", tmp_path).returncode == 0
    assert rows(tmp_path)["b.csv#9"]["text"] == "subject: Roof"


def test_an_empty_pattern_takes_back_what_is_remembered_of_records(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.csv").write_text("nr,text\n7,It blinks\n")
    (tmp_path / "docs/b.jsonl").write_text('{"id": 1, "subject": "Door", "text": "It squeaks"}\n')
    for pattern in ("--records '*.csv'", ""):
        fields = "--text-field text --id-field nr" if pattern else "--text-field subject"
        assert shell(f"embedcli ingest docs {pattern} {fields} --index index --dim 16", tmp_path).returncode == 0
    assert {path: row["text"] for path, row in rows(tmp_path).items()} == {"a.csv#7": "It blinks", "b.jsonl#1": "Door"}
    assert shell("embedcli ingest docs --records '' --index index", tmp_path).returncode == 0
    texts = {path: row["text"] for path, row in rows(tmp_path).items()}
    assert texts == {"a.csv": "nr: 7; text: It blinks", "b.jsonl#1": "It squeaks"}
    assert "nothing to do" in shell("embedcli ingest --index index", tmp_path).stderr


def test_bad_lines_are_exit_3_and_status_lists_them_by_line(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", 5)
    line = "(cat t.jsonl; echo '{torn') | embedcli ingest --records - --name tickets --index index --dim 16"
    made = shell(line, tmp_path)
    assert made.returncode == 3 and "1 not_json tickets#line 6" in made.stderr
    listed = shell("embedcli status index --failed", tmp_path)
    assert "tickets#line 6" in listed.stdout


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--records -", "--name tickets"),
        ("--name tickets", "--records -"),
        ("--whole", "--records -"),
        ("--records - --name /etc", "--name tickets"),
        ("--records - --name tickets .", "one run each"),
        ("-0", "--files-from"),
    ],
)
def test_flags_that_do_not_go_together_say_what_does(tmp_path: Path, flags: str, told: str) -> None:
    refused = shell(f"embedcli ingest {flags} --index index < /dev/null", tmp_path)
    assert refused.returncode == 2 and told in refused.stderr and not (tmp_path / "index").exists()


def test_an_empty_pipe_is_told_and_changes_nothing(tmp_path: Path) -> None:
    refused = shell("true | embedcli ingest --records - --name tickets --index index --dim 16", tmp_path)
    assert refused.returncode == 15 and "nothing came on stdin for `tickets`" in refused.stderr


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket's folder of a server with one table; it belongs to a user who is not root, as it must."""
    folder = tmp_path_factory.mktemp("pg")
    as_root: dict[str, Any] = {"user": "postgres", "cwd": "/"} if os.geteuid() == 0 else {}
    if as_root:
        shutil.chown(folder, "postgres")
        for above in [folder, *folder.parents]:
            if not above.stat().st_mode & 0o005:
                above.chmod(0o755)
    data = folder / "data"
    subprocess.run(
        [POSTGRES / "initdb", "-D", data, "-A", "trust", "-E", "UTF8", "-N"], check=True, **as_root, stdout=-3
    )
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    control = [POSTGRES / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log"]
    subprocess.run([*control, "start"], check=True, **as_root, stdout=-3)
    try:
        table = "create table tickets (id int primary key, title text, text text, status text, opened timestamptz)"
        rows = ", ".join(f"({n}, 'Ticket {n}', '{words(8, n).strip()}', 'open', '2026-05-01')" for n in range(20))
        subprocess.run(
            ["psql", "-h", folder, "-d", "postgres", "-qc", table, "-c", f"insert into tickets values {rows}"],
            check=True, **as_root,
        )  # fmt: skip
        yield str(folder)
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, **as_root, stdout=-3)


@pytest.mark.skipif(not (POSTGRES / "initdb").exists(), reason="PostgreSQL's server is not installed")
@pytest.mark.parametrize("how", ["csv", "json"])
def test_psql_into_the_index_row_by_row(tmp_path: Path, database: str, how: str) -> None:
    psql = f"psql -h {database} -U postgres -d postgres"
    select = (
        f"{psql} -qc 'copy tickets to stdout csv header'"
        if how == "csv"
        else f"{psql} -qAtc 'select row_to_json(tickets) from tickets'"
    )
    line = f"{select} | embedcli ingest --records - --name tickets --whole --index index --dim 16 --json"
    made = shell(line, tmp_path)
    assert made.returncode == 0, made.stderr
    found = rows(tmp_path)
    assert found.keys() == {f"tickets#{n}" for n in range(20)} and found["tickets#3"]["title"] == "Ticket 3"
    assert json.loads(found["tickets#3"]["meta"])["status"] == "open"
    update = "update tickets set status = 'closed' where id = 3; update tickets set text = 'New words' where id = 4"
    assert shell(f'{psql} -qc "{update}; delete from tickets where id = 5"', tmp_path).returncode == 0
    second = shell(line, tmp_path)
    summary = json.loads(second.stdout)
    assert (summary["chunks"]["embedded"], summary["sources"]["gone"], summary["sources"]["unchanged"]) == (1, 1, 17)
    assert json.loads(rows(tmp_path)["tickets#3"]["meta"])["status"] == "closed"
