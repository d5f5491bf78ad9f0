"""The README does what it says: its session on the samples, its snippet, its tables."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import typer

from embedcli import errors
from embedcli.cli.app import app
from tests.cli.test_pipes import POSTGRES, database  # noqa: F401
from tests.s3 import S3

HERE = Path(__file__).resolve().parent.parent
README = (HERE / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def masked(text: str) -> list[str]:
    """Lines without what differs from machine to machine: rates, seconds, the folder, on a slow one the progress;
    `...` stands for any end."""
    text = re.sub(r"([\d,]+ tokens/s, )?(\d+ \w+ )?\d+ s$", "RATE", text, flags=re.MULTILINE)
    text = re.sub(r"^\w[^\n]* [\d,]+/[\d,]+ documents[^\n]*\n", "", text, flags=re.MULTILINE)
    return [re.sub(r"(; largest: .*?kB, .*?kB, ).*", r"\1...", line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh folder with the samples, and `embedcli` on the PATH."""
    folder = tmp_path_factory.mktemp("you")
    shutil.copytree(HERE / "samples", folder / "samples")
    commands = folder / ".bin"
    commands.mkdir()
    (commands / "embedcli").write_text(f'#!/bin/sh\nexec {sys.executable} -m embedcli "$@"\n')
    (commands / "embedcli").chmod(0o755)
    return folder


def test_the_session_prints_what_the_readme_shows(place: Path) -> None:
    session = "".join(blocks("console"))
    environment = {**os.environ, "PATH": f"{place / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    environment["EMBEDCLI_CACHE"] = str(place / ".cache/embedcli")  # a machine on which nothing is converted yet
    for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        ran = subprocess.run(
            command, shell=True, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert masked(ran.stdout.replace(str(place), "/home/you")) == masked(expected), command


def test_the_index_is_queried_from_its_manifest_alone(place: Path) -> None:
    """After the session: the README's own lines find the manual."""
    (snippet,) = blocks("python")
    ran = subprocess.run([sys.executable, "-c", snippet], cwd=place, capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == 3 and "manual.md Lumen Hub LH-2: product manual" in lines[0]
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0.4


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("zstd")), reason="jq and zstd are not installed")
def test_the_pipes_run_in_a_real_shell(place: Path) -> None:
    """After the session, each line with `pipefail`; what they print and write is right."""
    (pipes,) = (block for block in blocks("bash") if "embedcli embed" in block)
    environment = {**os.environ, "PATH": f"{place / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    printed = []
    for line in pipes.splitlines():
        command = ["bash", "-o", "pipefail", "-c", line]
        ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, f"{line}\n{ran.stderr}"
        printed.append(ran.stdout)
    vectors = [json.loads(line)["embedding"] for line in (place / "vectors.jsonl").read_text().splitlines()]
    assert [len(vector) for vector in vectors] == [384, 384] and printed[1] == "128\n"
    table = pq.read_table(place / "rows.parquet")
    rows = pq.read_table(place / "idx/current/vectors")
    assert Counter(table.column("id").to_pylist()) == Counter(rows.column("path").to_pylist())
    counts = dict(line.split()[::-1] for line in printed[2].splitlines())
    assert counts == {
        name: str(n) for name, n in Counter(rows.column("path").to_pylist()).items() if name[-3:] == ".md"
    }


@pytest.mark.skipif(not (POSTGRES / "initdb").exists(), reason="PostgreSQL's server is not installed")
def test_lists_and_records_run_in_a_real_shell(place: Path, database: str) -> None:  # noqa: F811
    """psql speaks to a server with a table of 20 tickets."""
    (pipes,) = (block for block in blocks("bash") if "--files-from" in block)
    environment = {**os.environ, "PATH": f"{place / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    environment |= {"PGHOST": database, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    for line in pipes.splitlines():
        command = ["bash", "-o", "pipefail", "-c", line]
        ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert ran.returncode in (0, 3), f"{line}\n{ran.stderr}"
    listed = set(pq.read_table(place / "piped/current/vectors").column("path").to_pylist())
    assert listed == {path.name for path in (place / "samples").glob("*.md")}
    rows = Counter(pq.read_table(place / "records/current/vectors").column("path").to_pylist())
    assert sum(path.startswith("tickets#") for path in rows) == 20
    assert sum(path.startswith("tickets.csv#") for path in rows) == 26 and "manual.md" in rows


def test_the_query_in_sql_finds_the_passage(place: Path) -> None:
    """After the session, in DuckDB; a stored vector is its own nearest."""
    (query,) = blocks("sql")
    table = pq.read_table(next((place / "idx/current/vectors").glob("*.parquet")))
    row = table.slice(0, 1).to_pylist()[0]
    with contextlib.chdir(place):
        found = duckdb.execute(query, {"query": row["vector"]}).fetchall()
    assert (len(found), found[0][:2]) == (5, (row["path"], row["chunk_index"]))
    assert found[0][2] == pytest.approx(1.0)


def test_the_searches_find_what_they_look_for(place: Path) -> None:
    """After the session."""
    (searches,) = (block for block in blocks("bash") if "embedcli search" in block)
    environment = {**os.environ, "PATH": f"{place / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    expected = [r"manual\.md, .*Daily use", r"samples/tickets\.csv", r'"path": "manual\.md"']
    expected.append(r"recall@10 against the float32 vectors of the index: 0\.\d+ over chunks")
    for command, passage in zip(searches.splitlines(), expected, strict=True):
        ran = subprocess.run(command, shell=True, cwd=place, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0 and re.search(passage, ran.stdout + ran.stderr), (command, ran.stdout, ran.stderr)


def test_the_index_in_a_bucket_is_made(place: Path, s3: S3) -> None:
    ingest, shards = re.findall(r"`(embedcli [^`]*s3://bucket/idx[^`]*)`", README)
    environment = {**os.environ, "PATH": f"{place / '.bin'}:{os.environ['PATH']}", "PYTHONPATH": str(HERE)}
    url = s3.bucket()
    command = f"{ingest} && {shards}".replace("s3://bucket", url)
    ran = subprocess.run(command, shell=True, cwd=place, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    listed = ran.stdout.splitlines()
    assert listed and all(uri.startswith(f"{url}/idx/vectors/part-") for uri in listed)


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("curl")), reason="jq and curl are not installed")
def test_the_server_answers_what_the_readme_asks(place: Path) -> None:
    """After the session, on a free port; the server ends with SIGTERM."""
    (lines,) = (block for block in blocks("bash") if "embedcli serve" in block)
    start, *requests = lines.splitlines()
    command = [sys.executable, "-m", "embedcli", *start.removesuffix(" &").split()[1:], "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = ""
            while "ready" not in said:
                said += server.stderr.readline()
                assert server.poll() is None, said
            address = re.search(r"http://[\d.:]+", said)[0]  # type: ignore[index]
            printed = [
                subprocess.run(
                    ["bash", "-o", "pipefail", "-c", line.replace("http://127.0.0.1:8000", address)],
                    capture_output=True, text=True, check=True,
                ).stdout
                for line in requests
            ]  # fmt: skip
        finally:
            server.terminate()
    assert json.loads(printed[0])["total_tokens"] == 7 and "manual.md" in printed[1].split()
    assert server.returncode == 0


def test_the_line_for_cron_runs_in_the_environment_of_cron(place: Path) -> None:
    """After the session: no terminal, no variables; nothing has changed, so nothing is printed."""
    (line,) = blocks("crontab")
    command = line.split(maxsplit=5)[5].strip()
    command = command.replace("/opt/embedcli/.venv/bin/embedcli", f"{sys.executable} -m embedcli")
    command = command.replace("/srv/index", str(place / "idx"))
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE), "HOME": str(place)}
    ran = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env=bare, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_settings_file_is_read(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "embedcli.toml").write_text(text)
    command = [sys.executable, "-m", "embedcli", "config", "--json", "--index", str(tmp_path / "idx")]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(ran.stdout)["settings"]
    assert [found[key]["value"] for key in ("exclude", "max-tokens", "log-file")] == [
        ["*.log", "drafts/"], 256, str(tmp_path / "night.log"),
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_units_are_valid_for_systemd(place: Path, tmp_path: Path) -> None:
    (units,) = blocks("ini")
    for name, text in re.findall(r"^# /etc/systemd/system/(\S+)\n(.*?)(?=^# |\Z)", units, re.DOTALL | re.MULTILINE):
        text = text.replace("/opt/embedcli/.venv/bin/embedcli", str(place / ".bin/embedcli"))
        (tmp_path / name).write_text(text)
    files = sorted(map(str, tmp_path.iterdir()))
    ran = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
    assert (len(files), ran.returncode, ran.stderr) == (2, 0, "")


def test_every_line_of_shell_is_run_by_a_test_or_by_ci() -> None:
    """The session and the line for cron are run above, the rest by the scripts named here."""
    run_elsewhere = {
        "python3 -m venv": "by .ci/run, .ci/resolve and .ci/sglang",
        "cp -a": "by test_backup.py",
    }
    for block in blocks("sh"):
        assert any(block.startswith(start) for start in run_elsewhere), block


def test_the_readme_is_read_in_one_sitting() -> None:
    assert README.count("\n") < 400


def test_every_folder_of_the_package_stands_on_the_map() -> None:
    folders = {path.name for path in (HERE / "embedcli").iterdir() if (path / "__init__.py").exists()}
    assert folders == {name for name in folders if f"`{name}/`" in README}


def test_every_command_stands_in_the_readme() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        assert f"`embedcli {name}" in README, name
        assert command.help, name


def test_every_exit_code_stands_in_the_readme() -> None:
    table = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE) for code in row.split(", ")}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EmbedcliError)
    ]
    codes = {kind.exit_code for kind in kinds if isinstance(kind.exit_code, int)}
    assert codes | {0, 3, 130, 143} <= table
