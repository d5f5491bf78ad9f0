"""The README and the help of each command do what they say: the session on the samples, snippets, shell, tables.

In: the real program with its real engine, in a shell. Not here: the lines for backups (test_backup.py) and for Ray
(ray_cluster.py, which cluster/test_ray_transport.py uses).
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import typer

from embedcli import errors
from embedcli.cli.app import app
from embedcli.columns import row_schema
from tests.buckets import Front, S3Bucket, writer  # noqa: F401
from tests.cli.test_pipes import POSTGRES, database  # noqa: F401
from tests.help_texts import WITH_A_TEXT, text_of, typed
from tests.s3 import S3

HERE = Path(__file__).resolve().parent.parent
README = (HERE / "README.md").read_text()
NEEDS = {
    name: pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed") for name in ("jq", "zstd")
}
NEEDS_POSTGRES = pytest.mark.skipif(not (POSTGRES / "initdb").exists(), reason="PostgreSQL's server is not installed")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


class User:
    """A folder of a user with the samples in it, also as `docs`, and with `embedcli` on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("samples", "docs"):
            shutil.copytree(HERE / "samples", folder / name)
        (folder / ".bin").mkdir()
        self.add_program("embedcli", f'exec {sys.executable} -m embedcli "$@"')

    def add_program(self, name: str, line: str) -> None:
        file = self.folder / ".bin" / name
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)

    def run(self, line: str, *, codes: tuple[int, ...] = (0,), **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.folder / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
        command = ["bash", "-o", "pipefail", "-c", line]
        ran = subprocess.run(command, cwd=self.folder, env=environment | more, capture_output=True, text=True)
        assert ran.returncode in codes, f"{line}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def rows(self, index: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.folder / index / "current/vectors").to_pylist()
        return found

    def chunks_of(self, index: str) -> Counter[str]:
        return Counter(row["path"] for row in self.rows(index))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[User, list[tuple[str, str, str]]]:
    """The README's session: each command, what the README shows and what was printed."""
    user = User(tmp_path_factory.mktemp("you"))
    steps = []
    for step in re.split(r"^\$ ", "".join(blocks("console")), flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        cache = str(user.folder / ".cache/embedcli")  # a machine on which nothing is converted yet
        ran = user.run(command, codes=(0, 3), EMBEDCLI_CACHE=cache)
        steps.append((command, expected, (ran.stdout + ran.stderr).replace(str(user.folder), "/home/you")))
    return user, steps


@pytest.fixture(scope="module")
def user(session: tuple[User, Any]) -> User:
    """After the session of the README."""
    return session[0]


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> User:
    """After the first two lines of `embedcli ingest --help`, with an edit between them."""
    user = User(tmp_path_factory.mktemp("helped"))
    first, again = typed("ingest")[:2]
    user.run(first)
    with (user.folder / "docs/manual.md").open("a") as file:
        file.write("The hub now speaks Matter 1.5.\n")
    user.run(again)
    return user


# ---- the README: the session, and what comes after it


def masked(text: str) -> list[str]:
    """Lines without what differs from machine to machine: rates, seconds, the folder, on a slow one the progress;
    `...` stands for any end."""
    text = re.sub(r"([\d,]+ tokens/s, )?(\d+ \w+ )?\d+ s$", "RATE", text, flags=re.MULTILINE)
    text = re.sub(r"^\w[^\n]* [\d,]+/[\d,]+ documents[^\n]*\n", "", text, flags=re.MULTILINE)
    return [re.sub(r"(; largest: .*?kB, .*?kB, ).*", r"\1...", line) for line in text.splitlines()]


def pattern(expected: str) -> str:
    """What the README shows; `...` as a line of its own stands for any lines."""
    return "".join("(?:.*\n)*" if line == "..." else f"{re.escape(line)}\n" for line in masked(expected))


def test_the_session_prints_what_the_readme_shows(session: tuple[User, list[tuple[str, str, str]]]) -> None:
    assert len(session[1]) == 4
    for command, expected, printed in session[1]:
        lines = "".join(f"{line}\n" for line in masked(printed))
        assert re.fullmatch(pattern(expected), lines), f"{command}\n{printed}"


def test_the_index_is_queried_from_its_manifest_alone(user: User) -> None:
    """The README's own lines find the manual."""
    (snippet,) = blocks("python")
    ran = subprocess.run([sys.executable, "-c", snippet], cwd=user.folder, capture_output=True, text=True, check=True)
    found = ast.literal_eval(ran.stdout)
    assert len(found) == 3 and found[0][1:] == ("manual.md", found[0][2]) and "Lumen Hub LH-2" in found[0][2]
    scores = [score for score, _, _ in found]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.4


def test_the_search_of_the_readme_finds_what_it_looks_for(user: User) -> None:
    (search,) = (block for block in blocks("bash") if "embedcli search" in block)
    assert re.search(r"manual\.md, .*Daily use", user.run(search).stdout)


def test_the_pipe_of_the_readme_writes_vectors(user: User) -> None:
    (pipes,) = (block for block in blocks("bash") if "embedcli embed" in block)
    user.run(pipes.splitlines()[0])
    assert vectors_in(user) == [384, 384]


def vectors_in(user: User) -> list[int]:
    """The widths of the vectors in vectors.jsonl."""
    lines = (user.folder / "vectors.jsonl").read_text().splitlines()
    return [len(json.loads(line)["embedding"]) for line in lines]


@NEEDS_POSTGRES
def test_the_records_of_the_readme_come_from_psql(user: User, database: str) -> None:  # noqa: F811
    """psql speaks to a server with a table of 20 tickets."""
    (pipes,) = (block for block in blocks("bash") if "embedcli embed" in block)
    _, tickets = pipes.splitlines()
    user.run(tickets, PGHOST=database, PGUSER="postgres", PGDATABASE="postgres")
    assert len(user.rows("records")) == 20 == sum(path.startswith("tickets#") for path in user.chunks_of("records"))


def test_the_sync_of_the_readme_copies_the_index(user: User) -> None:
    (line,) = re.findall(r"`(embedcli sync [^`]+ idx)`", README)
    assert "76 rows were written, 0 deleted, 76 rows in all" in user.run(line).stderr


def test_the_index_in_a_bucket_is_made(user: User, s3: S3) -> None:
    ingest, shards = re.findall(r"`(embedcli [^`]*s3://bucket/idx[^`]*)`", README)
    url = s3.bucket()
    listed = user.run(f"{ingest} && {shards}".replace("s3://bucket", url)).stdout.splitlines()
    assert listed and all(uri.startswith(f"{url}/idx/vectors/part-") for uri in listed)


# ---- lines that stand in the help


@pytest.mark.parametrize("line", [blocks("crontab")[0], *re.findall(r"^  (\d+ 2 \* .*)$", text_of("ingest"), re.M)])
def test_the_line_for_cron_runs_in_the_environment_of_cron(user: User, line: str) -> None:
    """No terminal, no variables; nothing has changed, so nothing is printed."""
    command = line.split(maxsplit=5)[5].strip()
    command = command.replace("/opt/embedcli/.venv/bin/embedcli", f"{sys.executable} -m embedcli")
    command = command.replace("/srv/index", str(user.folder / "idx"))
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE), "HOME": str(user.folder)}
    ran = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env=bare, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_valid_for_systemd(user: User, tmp_path: Path) -> None:
    found = re.findall(r"^  # /etc/systemd/system/(\S+)\n((?:  [^#\s].*\n)+)", text_of("ingest"), re.MULTILINE)
    for name, text in found:
        text = textwrap.dedent(text).replace("/opt/embedcli/.venv/bin/embedcli", str(user.folder / ".bin/embedcli"))
        (tmp_path / name).write_text(text)
    files = sorted(map(str, tmp_path.iterdir()))
    ran = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
    assert (len(files), ran.returncode, ran.stderr) == (2, 0, "")


BY_OTHER_TESTS = ("psql", "s3://", "ray ", "ray://")
"""Lines of `embedcli ingest --help` that need a server, a bucket or a cluster."""


def test_the_runs_of_the_help_index_what_they_say(helped: User) -> None:
    lines = [line for line in typed("ingest") if not any(mark in line for mark in BY_OTHER_TESTS)]
    printed = {line: helped.run(line).stderr for line in lines}
    assert len(lines) == 6 and "a run would find" in printed[lines[3]]
    assert set(helped.chunks_of("piped")) == {path.name for path in (helped.folder / "docs").glob("*.md")}
    records = helped.chunks_of("records")
    assert sum(path.startswith("tickets.csv#") for path in records) == 26 and "manual.md" in records


@NEEDS_POSTGRES
def test_the_records_of_the_help_come_from_psql(helped: User, database: str) -> None:  # noqa: F811
    (line,) = typed("ingest", "psql")
    helped.run(line, PGHOST=database, PGUSER="postgres", PGDATABASE="postgres")
    assert sum(path.startswith("tickets#") for path in helped.chunks_of("records")) == 20


def test_the_buckets_of_the_help_are_read_and_written(tmp_path: Path, s3: S3, writer: Any) -> None:  # noqa: F811
    reads, writes = typed("ingest", "s3://")
    user, url = User(tmp_path), s3.bucket()
    S3Bucket(writer, url, Front()).put_folder(user.folder / "docs", "docs/")
    user.run(reads.replace("s3://bucket", url))
    assert user.chunks_of("idx").keys() >= {"manual.md", "faq.md"}
    assert {row["uri"] for row in user.rows("idx") if row["path"] == "faq.md"} == {f"{url}/docs/faq.md"}
    user.run(writes.replace("s3://bucket", url))
    assert f"{url}/idx/vectors/part-" in user.run(f"embedcli shards {url}/idx").stdout


def test_the_searches_of_the_help_find_what_they_look_for(helped: User) -> None:
    expected = [
        r"manual\.md, .*Daily use",
        r"docs/tickets\.csv",
        r'"path": "manual\.md"',
        r"> red light\n 1 (.|\n)*> battery\n 1 ",
    ]
    for line, passage in zip(typed("search"), expected, strict=True):
        assert re.search(passage, helped.run(line).stdout), line


def test_the_recut_of_the_help_says_how_well_it_finds(helped: User) -> None:
    (line,) = typed("recut")
    said = helped.run(line).stderr
    assert re.search(r"recall@10 against the float32 vectors of the index: 0\.\d+ over chunks", said)
    assert (helped.folder / "narrow/manifest.json").exists()


@NEEDS["jq"]
@NEEDS["zstd"]
def test_the_pipes_of_the_help_run_in_a_real_shell(helped: User) -> None:
    printed = [helped.run(line).stdout for line in typed("embed")]
    assert vectors_in(helped) == [384, 384] and printed[1] == "128\n"
    table = pq.read_table(helped.folder / "rows.parquet")
    assert Counter(table.column("id").to_pylist()) == helped.chunks_of("idx")


@NEEDS["jq"]
def test_the_rows_of_the_help_are_those_of_the_index(helped: User) -> None:
    printed = [helped.run(line).stdout for line in typed("rows")]
    counts = {name: int(count) for count, name in map(str.split, printed[0].splitlines())}
    assert counts == {name: n for name, n in helped.chunks_of("idx").items() if name.endswith(".md")}
    changed = (helped.folder / "new.csv").read_text().splitlines()
    assert changed[0] == '"chunk_id","text"' and len(changed) > 1


def test_the_query_in_sql_finds_the_passage(helped: User) -> None:
    """In DuckDB; a stored vector is its own nearest."""
    (query,) = re.findall(r"^  select (?:.*\n)+?.*;$", text_of("shards"), re.MULTILINE)
    row = helped.rows("idx")[0]
    with contextlib.chdir(helped.folder):
        found = duckdb.execute(query, {"query": row["vector"]}).fetchall()
    assert (len(found), found[0][:2]) == (5, (row["path"], row["chunk_index"]))
    assert found[0][2] == pytest.approx(1.0)


def test_the_sync_and_the_changes_of_the_help_hold_every_row(helped: User) -> None:
    (sync,), (everything, some) = typed("sync"), typed("changes")
    count = len(helped.rows("idx"))
    assert f"{count} rows were written, 0 deleted, {count} rows in all" in helped.run(sync).stderr
    helped.run(everything)
    assert (helped.folder / "rows.jsonl").read_text().count('"op":"upsert"') == count
    helped.run(some)
    assert '"index"' in (helped.folder / "since-1.ndjson").read_text()


def test_the_scans_without_text_come_to_ocr_by_the_line_of_the_help(helped: User) -> None:
    helped.add_program("ocrmypdf", 'echo "$@" >> ocr.txt')
    helped.run("embedcli ingest docs/unreadable --index idx", codes=(3,))
    (line,) = typed("status")
    helped.run(line)
    scan = helped.folder / "docs/unreadable/scan.pdf"
    assert (helped.folder / "ocr.txt").read_text() == f"{scan} {scan}\n"


@NEEDS["jq"]
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_server_answers_what_the_help_asks(user: User) -> None:
    """On a free port; the server ends with SIGTERM. The README starts it with the same line."""
    start, *requests = typed("serve")
    line = start.removesuffix(" &")
    assert f"`{line}`" in README
    command = [sys.executable, "-m", "embedcli", *line.split()[1:], "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(command, cwd=user.folder, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = ""
            while "ready" not in said:
                said += server.stderr.readline()
                assert server.poll() is None, said
            address = re.search(r"http://[\d.:]+", said)[0]  # type: ignore[index]
            printed = [user.run(line.replace("http://127.0.0.1:8000", address)).stdout for line in requests]
        finally:
            server.terminate()
    assert json.loads(printed[0])["total_tokens"] == 7 and "manual.md" in printed[1].split()
    assert server.returncode == 0


def test_the_settings_file_of_the_help_is_read(tmp_path: Path) -> None:
    lines = re.findall(r"^  ([a-z-]+ = .*)$", text_of("config"), re.MULTILINE)
    (tmp_path / "embedcli.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "embedcli", "config", "--json", "--index", str(tmp_path / "idx")]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(ran.stdout)["settings"]
    assert [found[key]["value"] for key in ("exclude", "max-tokens", "log-file")] == [
        ["*.log", "drafts/"], 256, str(tmp_path / "night.log"),
    ]  # fmt: skip


# ---- nothing is missing, and nothing is named that is not there


def test_every_line_of_shell_is_run_by_a_test_or_by_ci() -> None:
    """The blocks for Python, SQL and cron are run above, those of installing by .ci/run, .ci/resolve and .ci/sglang."""
    assert all(block.startswith("python3 -m venv") for block in blocks("sh"))
    assert len(blocks("bash")) == 2
    with_lines = {command for command in WITH_A_TEXT if typed(command)}
    above = {"ingest", "search", "recut", "embed", "rows", "sync", "changes", "status", "serve"}
    assert with_lines == above | {"verify"}


def test_the_readme_is_read_in_one_sitting() -> None:
    assert README.count("\n") < 250
    in_prose = [line for line in README.splitlines() if not line.startswith(("|", "python3 -m venv"))]
    assert max(map(len, in_prose)) <= 125


def test_every_folder_of_the_package_stands_on_the_map() -> None:
    folders = {path.name for path in (HERE / "embedcli").iterdir() if (path / "__init__.py").exists()}
    assert folders == {name for name in folders if f"`{name}/`" in README}


def commands() -> dict[str, Any]:
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


def test_every_command_stands_in_the_readme() -> None:
    for name, command in commands().items():
        assert f"`embedcli {name}" in README, name
        assert command.help, name


@pytest.mark.parametrize("command", [None, *WITH_A_TEXT])
def test_every_flag_that_the_prose_names_exists(command: str | None) -> None:
    """In the README and in each text of help; blocks, lines of shell and pip left out, for they have flags too."""
    text = re.sub(r"^```.*?^```$|`pip [^`]*`", "", README, flags=re.S | re.M) if command is None else text_of(command)
    named = re.findall(r"--[a-z][a-z-]*[a-z]", re.sub(r"^ *\$ (?:.*\\\n)*.*$", "", text, flags=re.MULTILINE))
    flags = {
        flag for one in commands().values() for param in one.params for flag in (*param.opts, *param.secondary_opts)
    }
    assert set(named) - {"--help"} <= flags


def test_every_column_stands_in_the_readme_and_in_the_help_of_rows() -> None:
    (table,) = re.findall(r"^\| column \|.*?\n\n", README, re.DOTALL | re.MULTILINE)
    columns = set(row_schema(128).names)
    assert columns == {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert columns <= set(re.findall(r"\w+", text_of("rows")))


def test_every_exit_code_stands_in_the_readme() -> None:
    table = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE) for code in row.split(", ")}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EmbedcliError)
    ]
    codes = {kind.exit_code for kind in kinds if isinstance(kind.exit_code, int)}
    assert codes | {0, 3, 130, 143} <= table
