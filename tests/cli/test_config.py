"""Where the value of a flag comes from: the command line, a variable, `embedcli.toml`, the index, in this order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from embedcli.cli.app import app
from embedcli.cli.values import settings_file
from embedcli.cli.values.group import NOT_SET_BY_FILE, Group, flags_of, options
from embedcli.errors import Mismatch, UsageError
from tests.cli.test_main import quick
from tests.published import filled
from tests.workshop import Workshop, words

Command = Callable[..., Any]


def group() -> Group:
    found = typer.main.get_command(app)
    assert isinstance(found, Group)
    return found


def every_option() -> Iterator[tuple[str, str, Any]]:
    for name, command in group().commands.items():
        for key, option in options(command):
            yield name, key, option


def write_toml(shop: Workshop, *lines: str, name: str = "embedcli.toml") -> Path:
    file = shop.index.parent / name
    file.write_text("\n".join(lines))
    return file


def settings(command: Command, shop: Workshop, *arguments: str) -> dict[str, tuple[Any, str]]:
    """Value and source of each flag, as `embedcli config` tells them."""
    ran = command("config", "--index", shop.index, "--json", *arguments)
    assert ran.exit_code == 0, ran.output
    return {key: (entry["value"], entry["from"]) for key, entry in json.loads(ran.stdout)["settings"].items()}


def test_a_flag_counts_before_its_variable_the_file_and_the_index(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shop)
    assert settings(command, shop)["dim"] == (16, "index")
    file = write_toml(shop, "dim = 17")
    assert settings(command, shop)["dim"] == (17, f"`{file}`")
    monkeypatch.setenv("EMBEDCLI_DIM", "18")
    assert settings(command, shop)["dim"] == (18, "the environment, `EMBEDCLI_DIM`")
    assert settings(command, shop, "--dim", "19")["dim"] == (19, "flag")


def test_a_value_with_a_blank_stands_in_quotes_in_a_variable(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a.txt", "old/b.txt", "old stuff/c.txt", "it's/d.txt", r"back\\slash.txt"):
        shop.write(path, words(30))

    def left(patterns: str) -> set[str]:
        monkeypatch.setenv("EMBEDCLI_EXCLUDE", patterns)
        assert command("ingest", shop.docs, "--index", shop.index).exit_code == 0
        return {row["path"] for row in shop.rows()}

    assert left(r"""'old stuff/' "it's/" *back\\* """) == {"a.txt", "old/b.txt"}
    assert len(left("''")) == 5, "an empty pattern leaves out none"
    assert len(left("'old stuff/'")) == 4


def test_a_run_uses_what_config_shows(shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("a.txt", words(200))
    shop.write("b.log", words(20))
    write_toml(shop, "dim = 24", "max-tokens = 40", "exclude = ['*.log']", "overlap = 4", "no-text = true")
    monkeypatch.setenv("EMBEDCLI_OVERLAP", "0")
    shown = settings(command, shop, "--max-tokens", "32")
    ran = command("ingest", shop.docs, "--index", shop.index, "--max-tokens", "32", "--json")
    assert ran.exit_code == 0, ran.output
    manifest = json.loads((shop.index / "current/manifest.json").read_text())
    for key in ("dim", "max-tokens", "overlap", "no-text"):
        assert manifest["settings"][key.replace("-", "_")] == shown[key][0], key
    assert manifest["roots"][0]["exclude"] == shown["exclude"][0] == ["*.log"]
    assert [shown[key][0] for key in ("dim", "max-tokens", "overlap", "no-text")] == [24, 32, 0, True]


def test_every_option_of_every_command_has_a_variable_that_its_help_lists() -> None:
    variables = {}
    for name, key, option in every_option():
        if key in ("help", "index"):
            continue
        variables[option.envvar] = option
        assert option.envvar == f"EMBEDCLI_{key.upper().replace('-', '_')}", (name, key)
        _, text = option.get_help_record(group().make_context("embedcli", ["status"], resilient_parsing=True))
        assert f"env var: {option.envvar}" in text, (name, key)
    assert len(variables) > 30
    assert "EMBEDCLI_CACHE" not in variables, "it names the folder of caches"


def test_every_flag_of_every_command_can_stand_in_the_file(shop: Workshop, command: Command) -> None:
    """By its long name, with a value of its kind; what a command does not take is for the others."""
    lines = {
        key: f"{key} = {'false' if option.is_bool_flag else ['0'] if option.multiple else 1}"
        for _, key, option in every_option()
        if key not in NOT_SET_BY_FILE | {"index"}
    }
    file = write_toml(shop, *lines.values())
    assert settings_file.read(file, flags_of(group().commands.values())).keys() == lines.keys()


def test_a_flag_that_means_something_else_in_each_command_has_a_key_for_each(shop: Workshop, command: Command) -> None:
    write_toml(shop, 'mode = "750"', 'search-mode = "words"', 'rows-format = "csv"')
    filled(shop)
    assert command("rows", shop.index, "--columns", "path").stdout.splitlines()[0] == '"path"'
    assert settings(command, shop)["mode"][0] == "750"
    keys = {(name, key) for name, key, _ in every_option() if key.endswith(("mode", "format"))}
    assert {("ingest", "mode"), ("search", "search-mode"), ("rows", "rows-format"), ("embed", "embed-format")} <= keys
    write_toml(shop, 'search-mode = "guess"')
    ran = command("search", "anything", shop.index)
    assert isinstance(ran.exception, UsageError) and "embedcli.toml" in ran.exception.hint


def test_times_and_paths_of_the_file_are_what_their_flags_take(shop: Workshop, command: Command) -> None:
    write_toml(shop, "deadline = 06:00:00", "time-limit = '4h'", "max-gone = 30", "metrics-file = 'm.prom'")
    shown = settings(command, shop)
    assert [shown[key][0] for key in ("deadline", "time-limit", "max-gone")] == ["06:00", "4h", ["30"]]
    assert shown["metrics-file"][0] == str(shop.index.parent / "m.prom")
    shop.write("a.txt", words(30))
    assert command("ingest", shop.docs, "--index", shop.index).exit_code == 0


def test_the_file_of_a_flag_counts_before_the_one_beside_the_index(shop: Workshop, command: Command) -> None:
    write_toml(shop, "dim = 17")
    other = write_toml(shop, "dim = 18", name="other.toml")
    assert settings(command, shop, "--config", str(other))["dim"] == (18, f"`{other}`")


def test_the_file_beside_the_index_counts_wherever_the_program_is_started(shop: Workshop) -> None:
    """A relative path in it is relative to its folder: cron starts in another one."""
    write_toml(shop, "log-file = 'night.log'", "quiet = true")
    shop.write("a.txt", words(30))
    ran = quick("ingest", shop.docs, "--index", shop.index, "--model", "minilm", cwd="/")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "generation 1" in (shop.index.parent / "night.log").read_text()


def test_the_file_may_name_the_index_and_what_is_typed_counts_before_it(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shop)
    file = write_toml(shop, "index = 'index'", name="other.toml")
    monkeypatch.chdir("/")
    assert f"index      {shop.index}\n" in command("status", "--config", file).stdout
    for typed in (("/no/index",), ("--index", "/no/index")):
        assert "/no/index" in str(command("status", *typed, "--config", file).exception)
    monkeypatch.setenv("EMBEDCLI_INDEX", "/no/such/index")
    assert "/no/such/index" in str(command("status", "--config", file).exception)


@pytest.mark.parametrize(
    ("line", "value"),
    {
        "index = 's3://bucket/idx'": "s3://bucket/idx",
        "index = 'file:///srv/idx'": "file:///srv/idx",
        "index = 'idx'": "HERE/idx",
        "files-from = 'list.txt'": "HERE/list.txt",
        "files-from = '-'": "-",
        "max-gone = ['40', 'old=100', '/srv/new=0', 's3://bucket/docs=3']": [
            "40", "HERE/old=100", "/srv/new=0", "s3://bucket/docs=3",
        ],
        "out = 'narrow'": "HERE/narrow",
        "metrics-file = '/var/m.prom'": "/var/m.prom",
    }.items(),
)  # fmt: skip
def test_a_place_in_the_file_starts_at_its_folder_and_a_url_is_as_it_stands(
    tmp_path: Path, line: str, value: str | list[str]
) -> None:
    file = tmp_path / "embedcli.toml"
    file.write_text(line)
    (found,) = settings_file.read(file, flags_of(group().commands.values())).values()
    assert json.loads(json.dumps(found).replace(str(tmp_path), "HERE")) == value


def test_the_index_of_the_file_may_be_in_a_bucket(shop: Workshop, command: Command) -> None:
    file = write_toml(shop, "index = 's3://bucket/idx'", name="other.toml")
    assert "`s3://bucket`" in str(command("status", "--config", file).exception)


def test_fields_of_records_are_no_fields_of_the_texts_that_embed_reads(
    shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toml(shop, "text-field = ['subject', 'body']")
    filled(shop)
    monkeypatch.setenv("EMBEDCLI_TEXT_FIELD", "subject body")
    (shop.index.parent / "texts.txt").write_text("the hub\n")
    ran = command("embed", "--index", shop.index, shop.index.parent / "texts.txt")
    assert ran.exit_code == 0 and json.loads(ran.stdout)["embedding"]
    write_toml(shop, "embed-text-field = 'body'")
    (shop.index.parent / "texts.txt").write_text('{"id": 7, "body": "the hub"}\n')
    assert json.loads(command("embed", "--index", shop.index, shop.index.parent / "texts.txt").stdout)["id"] == 7


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("dims = 12", "`dims` in `{file}` is not a flag", "did you mean `dim`?"),
        ("max_tokens = 12", "is not a flag", "did you mean `max-tokens`?"),
        ("zzz = 12", "is not a flag", "embedcli ingest --help"),
        ("[ingest]\ndim = 12", "`ingest` in `{file}` is not a flag", ""),
        ("config = 'x'", "is not a flag", ""),
        ("quiet = 1", "`quiet` in `{file}` must be true or false, not `1`", "flag = value"),
        ("dim = true", "must be no true or false", "flag = value"),
        ("dim = [1, 2]", "takes one value", "flag = value"),
        ("dim = ", "`{file}` is not TOML", "flag = value"),
        ("dim = 'many'", "invalid value for `--dim`", "mend it in `{file}`"),
        ("dim = 0", "`--dim` must be at least 1", "`--dim` comes from `{file}`"),
        ("device = 'tpu'", "`--device tpu` is not one of", "`--device` comes from `{file}`"),
    ],
)
def test_a_mistake_in_the_file_is_exit_2_and_names_it(
    shop: Workshop, command: Command, line: str, message: str, hint: str
) -> None:
    shop.write("a.txt", words(30))
    file = write_toml(shop, line)
    error = command("ingest", shop.docs, "--index", shop.index).exception
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert message.format(file=file) in str(error) and hint.format(file=file) in error.hint
    assert not shop.index.exists()


def test_a_file_that_is_named_and_not_there_is_exit_2(shop: Workshop, command: Command) -> None:
    for name in ("/no/such.toml", ""):
        error = command("status", shop.index, "--config", name).exception
        assert isinstance(error, UsageError) and "--config" in f"{error}{error.hint}"
    (shop.index.parent / "embedcli.toml").mkdir()
    assert "cannot read" in str(command("status", shop.index).exception)


def test_a_wrong_variable_is_named(shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCLI_OVERLAP", "lots")
    error = command("ingest", shop.docs, "--index", shop.index).exception
    assert isinstance(error, UsageError) and "EMBEDCLI_OVERLAP" in error.hint


def test_a_setting_of_the_file_that_contradicts_the_index_is_exit_12_and_names_the_file(
    shop: Workshop, command: Command
) -> None:
    filled(shop)
    file = write_toml(shop, "dim = 8")
    error = command("ingest", "--index", shop.index).exception
    assert isinstance(error, Mismatch) and f"`--dim` comes from `{file}`" in error.hint


def test_help_is_printed_although_the_file_is_wrong(shop: Workshop, command: Command) -> None:
    write_toml(shop, "dims = 12")
    assert command("ingest", "--index", shop.index, "--help").exit_code == 0


def test_config_shows_the_filters_of_the_roots_and_takes_the_flags_of_ingest(shop: Workshop, command: Command) -> None:
    shop.write("a.txt", words(30))
    shop.ingest(include=("*.txt",))
    shown = settings(command, shop, "--quiet")
    assert shown["include"] == (["*.txt"], "index") and shown["quiet"] == (True, "flag")
    assert shown["model"] == ("minilm", "index") and shown["engine"] == ("auto", "default")
    assert shown["index"] == (str(shop.index), "flag")
    assert shown.keys() == {key for key, _ in options(group().commands["ingest"])} - NOT_SET_BY_FILE - {"json", "debug"}
    lines = command("config", "--index", shop.index).stdout.splitlines()
    assert "include              *.txt                    index" in lines
