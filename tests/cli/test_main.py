"""The program as the shell sees it: messages, exit codes, stdout; each error says what to type next."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.held import Held
from tests.office_files import zipped
from tests.ole_files import compound
from tests.workshop import Workshop, words

HERE = Path(__file__).resolve().parents[2]
QUIET = {**os.environ, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}
PROGRAM = [sys.executable, "-m", "embedcli"]
QUICK = [sys.executable, str(HERE / "tests/quick_embedcli.py")]
"""The program with a fake engine, for tests that do not depend on the vectors."""


def run(*arguments: object, cwd: Path | str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return _run(PROGRAM, arguments, cwd, env)


def quick(*arguments: object, cwd: Path | str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return _run(QUICK, arguments, cwd, env)


def _run(
    program: list[str], arguments: tuple[object, ...], cwd: Path | str, env: dict[str, str] | None
) -> subprocess.CompletedProcess[str]:
    command = [*program, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**QUIET, **(env or {})}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `docs/` and an `index/` of it, made by the program."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "docs").mkdir()
    for number in range(3):
        (folder / f"docs/{number}.txt").write_text(words(60, number))
    made = quick("ingest", "docs", "--index", "index", "--model", "minilm", "--dim", 64, "--json", cwd=folder)
    assert made.returncode == 0, made.stderr
    data = json.loads(made.stdout)
    assert list(data) == [
        "exit_code", "index", "generation", "complete", "model", "dim", "fingerprint", "sources", "indexed",
        "failures_new", "news", "failures", "skipped", "chunks", "tokens", "replaced", "left", "bytes_rewritten",
        "elapsed_s", "seconds", "tokens_per_s",
    ]  # fmt: skip
    assert list(data["sources"]) == [
        "new", "changed", "moved", "unchanged", "gone", "failed", "stale", "partial", "skipped", "excluded",
    ]  # fmt: skip
    return folder


BAD = [
    (["ingest", "--index", "none"], 10, "is not an index", "embedcli ingest docs/"),
    (["ingest", "nothing-here", "--index", "none"], 15, "does not exist", "check the path"),
    (["ingest", "empty", "--index", "none"], 15, "no files found", "--include"),
    (
        ["ingest", "unreadable", "--index", "none", "--model", "minilm"],
        15,
        "1 damaged",
        "name sources that can be read",
    ),
    (["ingest", "docs", "--index", "docs/0.txt"], 10, "is a file", "--index"),
    (["ingest", "docs", "--index", "docs"], 10, "is not an index", "--index"),
    (["ingest", "index", "--index", "index"], 2, "is the index itself", "name the folder of the documents"),
    (["ingest", "docs", "--index", ""], 2, "is empty", "name the folder"),
    (["ingest", "--index", "index", "--no-text"], 12, "no_text off, this run asks for on", "--rebuild"),
    (["ingest", "docs", "--index", "none", "--dim", "0"], 2, "--dim", "leave `--dim` out"),
    (["ingest", "docs", "--index", "none", "--dim", "5000", "--model", "minilm"], 2, "width of 384", "--dim 384"),
    (["ingest", "docs", "--index", "none", "--dim", "many"], 2, "--dim", ""),
    (["ingest", "docs", "--index", "none", "--max-tokens", "9999", "--model", "minilm"], 2, "256", "--max-tokens 256"),
    (["ingest", "docs", "--index", "none", "--overlap", "200", "--model", "minilm"], 2, "quarter", "--overlap 64"),
    (["ingest", "docs", "--index", "none", "--model", "nobody/nothing"], 13, "nobody/nothing", "--model"),
    (["ingest", "docs", "--index", "none", "--model", "./half"], 13, "half", ""),
    (["ingest", "--index", "index", "--dim", "32"], 12, "built with dim 64, this run asks for 32", "--rebuild"),
    (["ingest", "--index", "index", "--max-tokens", "128"], 12, "max_tokens 256, this run asks for 128", "--rebuild"),
    (["ingest", "docs", "--index", "none", "--device", "tpu"], 2, "tpu", ""),
    (["ingest", "docs", "--index", "none", "--engine", "sglang"], 13, "SGLang needs an NVIDIA card", "--engine torch"),
    (["ingest", "docs", "--index", "none", "--quantization", "int3"], 2, "int3", ""),
    (["ingest", "docs", "--index", "none", "--gpus", "0;1"], 2, "0;1", ""),
    (["ingest", "docs", "--index", "none", "--gpu-memory", "0"], 2, "must be more than 0", ""),
    (["ingest", "docs", "--index", "none", "--threads", "0"], 2, "`--threads` must be at least 1, not `0`", "leave"),
    (["ingest", "docs", "--index", "none", "--max-file-size", "99999999999999"], 2, "at most 8796093022207 MiB", ""),
    (["ingest", "docs", "--index", "none", "--checkpoint-every", "nan"], 2, "must be 0 seconds or more", ""),
    (["ingest", "docs", "--index", "none", "--publish-every", "nan"], 2, "must be 0 seconds or more", ""),
    (["bench", "--size", "nan"], 2, "`--size` must be more than 0, not `nan`", "leave the flag out"),
    (["bench", "--size", "0"], 2, "`--size` must be more than 0", "leave the flag out"),
    (["bench", "--corpus-gb", "inf"], 2, "`--corpus-gb` must be more than 0", "leave the flag out"),
    (["bench", "--price-per-hour", "-1"], 2, "`--price-per-hour` must be more than 0", "leave the flag out"),
    (["ingest", "docs", "--index", "none", "--precision", "float16"], 2, "is not one of float32", "leave the flag out"),
    (["ingest", "docs", "--index", "none", "--batch-tokens", "7"], 2, "must be at least 512", ""),
    (["ingest", "docs", "--index", "none", "--engine-forward", "fast"], 2, "not one of own, sglang", ""),
    (["ingest", "docs", "--index", "none", "--engine-forward", "own"], 2, "only SGLang has", "`--engine-forward`"),
    (["ingest", "docs", "--index", "none", "--gpu-memory", "8"], 2, "only SGLang has", "leave `--gpu-memory` out"),
    (["ingest", "--index", "index", "--quantization", "fp8"], 12, "quantization none", "--rebuild"),
]


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), BAD, ids=[" ".join(case[0][1:]) for case in BAD])
def test_an_error_says_what_to_type_next_and_changes_nothing(
    indexed: Path, arguments: list[str], code: int, message: str, hint: str
) -> None:
    (indexed / "empty").mkdir(exist_ok=True)
    (indexed / "unreadable").mkdir(exist_ok=True)
    (indexed / "unreadable/a.pdf").write_bytes(b"%PDF-1.7 nothing")
    (indexed / "half").mkdir(exist_ok=True)
    (indexed / "half/config.json").write_text("{}")
    before = os.readlink(indexed / "index/current")
    ran = run(*arguments, cwd=indexed)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr and hint in ran.stderr
    assert "Traceback" not in ran.stderr and ran.stdout == ""
    assert os.readlink(indexed / "index/current") == before
    assert not (indexed / "none").exists(), "a refused run leaves no folder behind"


def test_a_model_missing_from_its_folder_is_exit_13_and_changes_nothing(indexed: Path, tmp_path: Path) -> None:
    from tests.tiny_models import make_bert

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("hello world " * 20)
    make_bert(tmp_path / "model")
    assert quick("ingest", "docs", "--index", "index", "--model", "model", cwd=tmp_path).returncode == 0
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    (tmp_path / "docs/b.txt").write_text("more words " * 20)
    ran = quick("ingest", "--index", "index", cwd=tmp_path)
    assert ran.returncode == 13 and "hint:" in ran.stderr
    assert os.readlink(tmp_path / "index/current") == "generations/000001"
    again = quick("ingest", "--index", "index", "--model", "elsewhere", cwd=tmp_path)
    assert again.returncode == 0, "the digest identifies the model, not its path"


def test_the_index_stores_the_absolute_path_of_a_model_folder_and_a_new_one_when_it_is_named(tmp_path: Path) -> None:
    from tests.tiny_models import make_bert

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("hello world " * 20)
    make_bert(tmp_path / "models/mini")
    assert quick("ingest", "docs", "--index", "index", "--model", "models/mini", cwd=tmp_path).returncode == 0
    (tmp_path / "docs/b.txt").write_text("more words " * 20)
    assert quick("ingest", "--index", tmp_path / "index", cwd="/").returncode == 0, "cron starts it in another folder"
    (tmp_path / "models").rename(tmp_path / "moved")
    unchanged = quick("ingest", "--index", "index", "--model", "moved/mini", cwd=tmp_path)
    assert unchanged.returncode == 0, unchanged.stderr
    (tmp_path / "docs/c.txt").write_text("yet more words " * 20)
    assert quick("ingest", "--index", tmp_path / "index", cwd="/").returncode == 0, (
        "the run that named the new path had nothing to do"
    )


def test_pull_prints_folder_commit_and_digest_and_fetches_the_commit_an_index_asks_for(tmp_path: Path) -> None:
    from tests.hub import COMMIT, Hub, serving
    from tests.tiny_models import make_bert

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("hello world " * 20)
    home, weights = {"HF_HOME": str(tmp_path / "home")}, make_bert(tmp_path / "model") / "model.safetensors"
    with serving(Hub(tmp_path / "model", "owner/mini")) as server:
        online = {**home, "HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "0"}
        pulled = quick("pull", "owner/mini", cwd=tmp_path, env=online)
    assert pulled.returncode == 0, pulled.stderr
    folder, commit, digest = (line.split(" ", 1)[1] for line in pulled.stdout.splitlines())
    assert (commit, digest) == (COMMIT, hashlib.sha256(weights.read_bytes()).hexdigest())
    assert Path(folder, "model.safetensors").read_bytes() == weights.read_bytes()

    assert quick("ingest", "docs", "--index", "index", "--model", "owner/mini", cwd=tmp_path, env=home).returncode == 0
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "docs/b.txt").write_text("more words " * 20)
    gone = quick("ingest", "--index", "index", cwd=tmp_path, env=home)
    assert gone.returncode == 13 and f"`embedcli pull owner/mini@{COMMIT}`" in gone.stderr
    assert "minilm" not in gone.stderr, "with another model the next run would be exit 12"
    with serving(Hub(tmp_path / "model", "owner/mini")) as server:
        online = {**home, "HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "0"}
        assert quick("pull", f"owner/mini@{COMMIT}", cwd=tmp_path, env=online).returncode == 0
    assert quick("ingest", "--index", "index", cwd=tmp_path, env=home).returncode == 0


def test_a_locked_index_is_exit_11_and_names_the_holder(indexed: Path) -> None:
    import fcntl

    with (indexed / "index/lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"host": "elsewhere", "pid": 4711, "since": "2026-01-01"}))
        file.flush()
        ran = run("ingest", "--index", "index", cwd=indexed)
        file.truncate(0)
    assert ran.returncode == 11 and "pid 4711 on `elsewhere`" in ran.stderr


def test_json_prints_one_object_for_an_error_too(indexed: Path) -> None:
    ran = run("ingest", "--index", "index", "--dim", "32", "--json", cwd=indexed)
    assert json.loads(ran.stdout)["exit_code"] == 12 == ran.returncode


@pytest.mark.parametrize(
    ("typed", "error", "hint"),
    [
        (["ingest", "--dim", "x", "--json"], "'--dim'", "see `embedcli ingest --help`"),
        (["status", "--json", "--nosuch"], "no such option: --nosuch", "see `embedcli status --help`"),
        (["shards", "--json", "--index"], "option '--index' requires an argument", "see `embedcli shards --help`"),
        (["verify", "--json", "a", "b", "c"], "unexpected extra argument", "see `embedcli verify --help`"),
    ],
)
def test_what_was_typed_wrong_is_an_object_too(tmp_path: Path, typed: list[str], error: str, hint: str) -> None:
    ran = run(*typed, cwd=tmp_path)
    printed = json.loads(ran.stdout)
    assert (ran.returncode, printed["exit_code"], printed["hint"]) == (2, 2, hint) and error in printed["error"]
    assert f"error: {printed['error']}\n\nhint: {hint}\n" == ran.stderr


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_had_by_either_flag_of_every_command(tmp_path: Path, flag: str) -> None:
    for command in ((), ("ingest",), ("status",)):
        ran = run(*command, flag, cwd=tmp_path)
        assert ran.returncode == 0 and "Usage:" in ran.stdout


def test_the_version_is_an_option_too(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == run("version", cwd=tmp_path).stdout


def test_the_shell_completes_the_commands(tmp_path: Path) -> None:
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # cron has no shell to detect
    assert "_EMBEDCLI_COMPLETE" in run("--show-completion", "bash", cwd=tmp_path, env=named).stdout


def test_quiet_names_new_failures_once_and_nothing_else(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("offer.pdf", "scan-7.pdf"):
        (docs / name).write_bytes(b"%PDF-1.4 broken")
    (docs / "good.txt").write_text("A good text.")
    command = ["ingest", "docs", "--index", "idx", "--model", "minilm", "--dim", "32", "--quiet"]
    first, second = (run(*command, cwd=tmp_path) for _ in range(2))
    assert (first.returncode, first.stdout) == (3, "")
    assert first.stderr == "2 new failures: 2 damaged offer.pdf, scan-7.pdf\n"
    assert (second.returncode, second.stderr, second.stdout) == (0, "", "")


def first_night(folder: Path, texts: Mapping[str, str]) -> tuple[Path, Callable[..., subprocess.CompletedProcess[str]]]:
    """An index of these texts, by their paths. Returns their folder, and what runs the next night, with more flags."""
    docs = folder / "docs"
    for name, text in texts.items():
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(text)
    command = ["ingest", docs, "--index", "idx", "--model", "minilm", "--dim", "32"]
    assert quick(*command, cwd=folder).returncode == 0
    return docs, lambda *flags: quick(*command, *flags, cwd=folder)


def numbered(count: int, name: str = "{}.txt") -> dict[str, str]:
    return {name.format(number): words(9, number) for number in range(count)}


def test_quiet_names_what_lets_a_folder_go_that_was_just_frozen(tmp_path: Path) -> None:
    """And once: cron mails it."""
    docs, night = first_night(tmp_path, numbered(12, "share/{}.txt"))
    for number in range(9):
        (docs / f"share/{number}.txt").unlink()
    first, second = (night("--quiet") for _ in range(2))
    assert first.returncode == 3 and f"If they were deleted: `--max-gone {docs}/share=100`\n" in first.stderr
    assert (second.returncode, second.stderr) == (0, "")


def test_sources_that_have_lost_their_text_are_news(tmp_path: Path) -> None:
    docs, night = first_night(tmp_path, numbered(3))
    (docs / "1.txt").write_text("")
    (docs / "2.txt").write_bytes(bytes(range(256)) * 9)
    first, second = (night("--quiet") for _ in range(2))
    assert (first.returncode, first.stderr) == (3, "2 new failures: 1 empty 1.txt, 1 not_text 2.txt\n")
    assert (second.returncode, second.stderr) == (0, "")


def test_an_index_is_not_emptied_because_no_source_has_text_any_more(tmp_path: Path) -> None:
    """As after a night in which the disk of a file server was full."""
    docs, night = first_night(tmp_path, numbered(10))
    for number in range(10):
        (docs / f"{number}.txt").write_text("")
    refused = [night("--quiet") for _ in range(2)]
    assert [ran.returncode for ran in refused] == [15, 15]
    assert "none of the 10 sources has text any more: 10 empty; the index stays as it was" in refused[1].stderr
    assert os.readlink(tmp_path / "idx/current") == "generations/000001"
    (docs / "1.txt").write_text(words(9, 1))
    assert night("--quiet").returncode == 3
    (docs / "1.txt").write_text("")
    assert night("--quiet", "--max-gone", "100").returncode == 3
    assert json.loads(quick("status", "idx", "--json", cwd=tmp_path).stdout)["chunks"] == 0


def test_containers_that_were_all_emptied_are_not_lost_either(tmp_path: Path) -> None:
    records = "".join(json.dumps({"text": words(9, number)}) + "\n" for number in range(2))
    docs, night = first_night(tmp_path, dict.fromkeys(numbered(10, "{}.jsonl"), records))
    for number in range(10):
        (docs / f"{number}.jsonl").write_text("")
    ran = night("--quiet")
    assert ran.returncode == 15 and "none of the 10 sources has text any more: 10 empty" in ran.stderr


def test_what_may_go_may_leave_sources_without_text_behind(tmp_path: Path) -> None:
    docs, night = first_night(tmp_path, {**numbered(12), "empty.txt": ""})
    for number in range(12):
        (docs / f"{number}.txt").unlink()
    frozen = night()
    flag = re.search(r"`(--max-gone [^`]+)`", frozen.stderr)
    assert frozen.returncode == 3 and flag
    ran = night(*shlex.split(flag[1]))
    assert ran.returncode == 0 and "12 gone" in ran.stderr


@pytest.mark.parametrize("typed", ["%FF", "%25FF"])
def test_a_folder_whose_name_looks_encoded_is_let_go_as_it_is_typed_or_shown(tmp_path: Path, typed: str) -> None:
    docs, night = first_night(tmp_path, {**numbered(12, "%FF/{}.txt"), "a.txt": words(9, 99)})
    shutil.rmtree(docs / "%FF")
    ran = night("--max-gone", f"{docs}/{typed}=100")
    assert ran.returncode == 0 and "12 gone" in ran.stderr and "warning" not in ran.stderr


def test_a_reader_of_the_output_that_leaves_is_exit_141(indexed: Path) -> None:
    commands = ("search text index", "status index --json", "shards index", "verify index", "changes index")
    for arguments in (*commands, "status nothing --json"):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            ran = subprocess.run(
                [*QUICK, *arguments.split()], cwd=indexed, env=QUIET, stdout=pipe, stderr=subprocess.PIPE, text=True
            )
        assert ran.returncode == 141 and "Error" not in ran.stderr, ran.stderr


def at_the_import_of(module: str, action: str, folder: Path) -> None:
    """Let each Python with this folder on its path do something when it is about to import the module."""
    (folder / "sitecustomize.py").write_text(
        "import os, signal, sys, warnings\n"
        "class At:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        f"            {action}\n"
        "sys.meta_path.insert(0, At())\n"
    )


@pytest.mark.parametrize(("ignored", "ended"), [("", -signal.SIGINT), ("trap '' INT; ", 0)])
def test_ctrl_c_before_the_commands_are_loaded_leaves_no_traceback(tmp_path: Path, ignored: str, ended: int) -> None:
    """It comes when Typer is about to be imported; the background of a script does not hear it."""
    at_the_import_of("typer", "os.kill(os.getpid(), signal.SIGINT)", tmp_path)
    command = f"{ignored}exec {shlex.quote(sys.executable)} -m embedcli --version"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run in the background too
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (ended, "")


@pytest.mark.parametrize(("asked", "shown"), [("", False), ("default", True)])
def test_what_libraries_warn_each_other_of_is_shown_on_request(tmp_path: Path, asked: str, shown: bool) -> None:
    """Qdrant's client warns of a large folder at each opening: a night with `--quiet` would be mailed."""
    at_the_import_of("embedcli.verbs.status", "warnings.warn('of a library', UserWarning)", tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{HERE}", "PYTHONWARNINGS": asked}
    command = [sys.executable, "-m", "embedcli", "status", str(tmp_path / "nothing")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 10 and ("of a library" in ran.stderr) == shown, ran.stderr


def test_quiet_prints_nothing_when_a_run_from_cron_succeeds(indexed: Path) -> None:
    command = [sys.executable, "-m", "embedcli", "ingest", "--index", str(indexed / "index"), "--quiet"]
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE)}
    ran = subprocess.run(command, cwd="/", env=bare, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_environment_names_the_index(indexed: Path) -> None:
    ran = run("ingest", cwd=indexed, env={"EMBEDCLI_INDEX": str(indexed / "index")})
    assert ran.returncode == 0 and f"index {indexed / 'index'}" in ran.stderr


def signalled_at_work(folder: Path, first: signal.Signals, second: signal.Signals | None = None) -> tuple[int, str]:
    """(exit status, stderr) of a first run that gets these signals when one list is embedded and the next one sent.

    That list is answered after the first signal, and never if there is a second one, which comes when the first is
    handled: two that come at once may be one.
    """
    shop = Workshop(folder)
    for name in range(12):
        shop.write(f"{name}.txt", words(800, name))
    command = [*QUICK, "ingest", "docs", "--index", "index", "--model", "minilm"]
    held = Held(folder / "held", "list 2")
    env = {**QUIET, **held.environment}
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        held.wait(process)
        process.send_signal(first)
        said = ""
        while "\nstopping: " not in said:
            assert (line := process.stderr.readline()), said
            said += line
        if second is None:
            held.go()
        else:
            process.send_signal(second)
        said += process.stderr.read()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_finished_documents_and_the_next_run_continues(
    tmp_path: Path, number: signal.Signals
) -> None:
    status, said = signalled_at_work(tmp_path, number)
    assert status == 128 + number, said
    assert "run the same command again" in said
    again = quick("ingest", "docs", "--index", "index", "--model", "minilm", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert 0 < summary["chunks"]["embedded"] < summary["chunks"]["total"], "no vector is computed twice"


def test_the_summary_counts_failures_by_reason_and_skipped_files_apart(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "good.txt").write_text(words(30))
    (docs / "bad.pdf").write_bytes(b"%PDF-1.7 nothing")
    (docs / "empty.txt").touch()
    (docs / "picture.txt").write_bytes(bytes(range(256)) * 20)
    (docs / "old.doc").write_bytes(compound({"WordDocument": b"text"}))
    (docs / "notes.zip").write_bytes(zipped({"a.txt": "text"}))
    first = quick("ingest", "docs", "--index", "index", "--model", "minilm", "--json", cwd=tmp_path)
    for ran, code in ((first, 3), (quick("ingest", "--index", "index", "--json", cwd=tmp_path), 0)):
        assert ran.returncode == code
        summary = json.loads(ran.stdout)
        assert (summary["failures"], summary["sources"]["skipped"]) == ({"damaged": 1}, 4)
        assert summary["skipped"]["unsupported"] == {".doc": 1}
        assert "1 failed: 1 damaged" in ran.stderr
        assert "4 skipped: 1 .doc unsupported, 1 .zip archived, 1 binary, 1 empty" in ran.stderr


def test_text_is_read_without_packages_that_only_the_tests_need(tmp_path: Path) -> None:
    """Without pandas, which is installed for the tests, Arrow reserves another amount of memory."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/pandas.py").write_text("raise ImportError")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("Hello, plain text.")
    bare = {"PYTHONPATH": f"{tmp_path / 'bare'}:{HERE}"}
    ran = quick("ingest", "docs", "--index", "index", "--model", "minilm", cwd=tmp_path, env=bare)
    assert ran.returncode == 0, ran.stderr


def test_a_run_continues_when_its_stderr_is_closed_by_the_reader(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text(words(30))
    command = [*QUICK, "ingest", "docs", "--index", "index", "--model", "minilm"]
    with subprocess.Popen(command, cwd=tmp_path, env=QUIET, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()  # as `head -1` does
    assert process.returncode == 0
    assert os.readlink(tmp_path / "index/current") == "generations/000001"


def test_output_that_cannot_be_written_is_exit_14_without_a_traceback(indexed: Path) -> None:
    for arguments in (["ingest", "--index", "index", "--json"], ["status", "index"]):
        with open("/dev/full", "w") as full:
            ran = subprocess.run(
                [*PROGRAM, *arguments], cwd=indexed, env=QUIET, stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert ran.returncode == 14, ran.stderr
        assert "No space left" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_a_run_with_closed_streams_succeeds(indexed: Path, closed: str) -> None:
    program = shlex.join([*PROGRAM, "ingest", "--index", "index", "--json"])
    ran = subprocess.run(f"exec {program} {closed}", shell=True, cwd=indexed, env=QUIET, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert closed != "2>&-" or json.loads(ran.stdout)["exit_code"] == 0


def test_filters_that_leave_no_source_are_exit_15_and_are_not_stored(indexed: Path) -> None:
    before = os.readlink(indexed / "index/current")
    ran = run("ingest", "docs", "--index", "index", "--include", "nosuch*", cwd=indexed)
    assert ran.returncode == 15 and "leave none of 3 known sources" in ran.stderr
    assert os.readlink(indexed / "index/current") == before
    assert run("ingest", "--index", "index", "--quiet", cwd=indexed).returncode == 0, "the filters were not stored"


def test_json_of_ingest_is_complete_when_the_locale_lacks_characters_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "文書").mkdir()
    (tmp_path / "文書/あ.txt").write_text(words(30))
    for _ in range(2):
        ran = quick(
            "ingest", "文書", "--index", "索引", "--model", "minilm", "--json",
            cwd=tmp_path, env={"PYTHONIOENCODING": "latin-1"},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["index"] == str(tmp_path / "索引")


def test_json_of_status_is_complete_when_the_locale_lacks_characters_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "𠮷").mkdir()
    (tmp_path / "𠮷/broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (tmp_path / "𠮷/one.txt").write_text(words(30))
    quick("ingest", "𠮷", "--index", "index", "--model", "minilm", cwd=tmp_path)
    for arguments in ("status", "index"), ("status", "index", "--failed"):
        ran = quick(*arguments, "--json", cwd=tmp_path, env={"PYTHONIOENCODING": "latin-1"})
        assert "𠮷" in str(json.loads(ran.stdout)), ran.stderr


def test_a_second_signal_exits_at_once_without_a_message(tmp_path: Path) -> None:
    status, said = signalled_at_work(tmp_path, signal.SIGTERM, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert "error:" not in said and "Traceback" not in said
    assert quick("verify", "index", cwd=tmp_path).returncode == 10, "nothing was published"
    again = quick("ingest", "docs", "--index", "index", "--model", "minilm", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_a_terminal_gets_a_live_display_and_the_log_gets_every_line(tmp_path: Path) -> None:
    """The display has no colours here, as NO_COLOR is set."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text(words(2000))
    command = [*QUICK, "ingest", "docs", "--index", "index", "--model", "minilm"]
    ours, theirs = pty.openpty()
    held = Held(tmp_path / "held", "loading")
    env = {**QUIET, **held.environment, "TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "80"}
    with subprocess.Popen([*command, "--log-file", "log"], cwd=tmp_path, env=env, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # reading from a closed terminal is an error
            while data := os.read(ours, 4096):
                shown += data
                if b"loading the model: " in shown:  # it is shown four times a second, and a quick model loads in less
                    held.go()
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "\x1b[?25l" in text and "\x1b[?25h" in text, "the cursor is hidden, and shown again at the end"
    assert "loading the model: " in text and "/1 documents" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text), "no colours"
    lines = (tmp_path / "log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert "new index" in lines[0] and "generation 1: 1 new" in lines[-1]


def test_a_run_says_how_many_characters_were_no_text(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/torn.txt").write_bytes("für März, Grüße aus Köln ".encode() + b"\xff")
    done = quick("ingest", "docs", "--index", "index", "--model", "minilm", "--dim", 64, cwd=tmp_path)
    assert done.returncode == 0
    assert "1 source with bytes that are not text: 1 character replaced by U+FFFD" in done.stderr


@pytest.mark.parametrize(("command", "number"), [("search", signal.SIGTERM), ("rows", signal.SIGINT)])
def test_a_signal_ends_a_command_whose_output_nobody_takes(
    tmp_path: Path, command: str, number: signal.Signals
) -> None:
    """As `timeout` does with a pipe that stands still. `search -` was deaf to the first signal, `rows` to Ctrl-C."""
    (tmp_path / "docs").mkdir()
    for name in range(40):
        (tmp_path / f"docs/{name}.txt").write_text(words(400, seed=name))
    assert quick("ingest", "docs", "--index", "index", "--model", "minilm", cwd=tmp_path).returncode == 0
    (tmp_path / "queries").write_text("red light\n" * 5_000)
    arguments = {"search": ["search", "-", "--index", "index", "--jsonl"], "rows": ["rows", "index"]}[command]
    with (
        open(tmp_path / "queries", "rb") as queries, open(tmp_path / "said", "wb") as said,
        subprocess.Popen(
            [*QUICK, *arguments], cwd=tmp_path, env=QUIET, stdin=queries, stdout=subprocess.PIPE, stderr=said,
            pipesize=PIPE_BYTES,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        while waiting(process.stdout.fileno()) < PIPE_BYTES:
            assert process.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert (tmp_path / "said").read_text().count("note:") <= 1


def test_a_stopped_search_does_not_speak_of_documents(indexed: Path) -> None:
    with subprocess.Popen(
        [*QUICK, "search", "-", "--index", "index"], cwd=indexed, env=QUIET, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        print("anything", file=process.stdin, flush=True)
        assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert "error: stopped\n" in said and "documents" not in said and "hint:" not in said


PIPE_BYTES = 4_096
"""The smallest pipe: the first piece of output that does not fit stays in the program."""


def waiting(descriptor: int) -> int:
    """The bytes that can be read from a pipe."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
