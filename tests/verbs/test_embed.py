"""`embedcli embed` in real pipes: vectors in the order of the texts, streaming, and what has none keeps its place.

Most of it with an engine that needs no torch; what is about the vectors themselves with MiniLM and small models.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.models import resolve
from embedcli.models.tokenizer import load_tokenizer
from embedcli.pipes.tables import Shape
from embedcli.pipes.texts import Form
from embedcli.run.tools import Tools
from embedcli.verbs import embed as verb
from embedcli.verbs.embed_job import Asked
from tests.fake_engines import vector
from tests.tiny_models import make_qwen, make_xlmr
from tests.workshop import Workshop, words

HERE = Path(__file__).resolve().parent.parent.parent
QUICK = [sys.executable, str(HERE / "tests/quick_embedcli.py")]
PROGRAM = [sys.executable, "-m", "embedcli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE), "HF_HUB_OFFLINE": "1"}
TEXTS = [words(5 + seed * 7 % 40, seed).strip() for seed in range(60)]


def embed(*flags: str, texts: str | bytes = "", program: Sequence[str] = QUICK) -> subprocess.CompletedProcess[bytes]:
    given = texts.encode() if isinstance(texts, str) else texts
    command = (
        [*program, "embed", "--model", "minilm", *flags] if "--index" not in flags else [*program, "embed", *flags]
    )
    return subprocess.run(command, input=given, capture_output=True, env=ENVIRONMENT, timeout=120)


def records(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def expected(texts: Sequence[str], dim: int) -> np.ndarray:
    """What the double gives for these texts."""
    tokens = load_tokenizer(resolve.resolve("minilm", report=print).folder)
    return np.stack([vector(tokens.row_of(text), dim) for text in texts])


def test_lines_become_unit_vectors_in_their_order() -> None:
    ran = embed("--dim", "8", "--text", texts="\n".join(TEXTS))
    assert (ran.returncode, ran.stderr) == (0, b""), ran.stderr
    found = records(ran.stdout)
    assert [list(record) for record in found] == [["text", "embedding"]] * 60
    assert [record["text"] for record in found] == TEXTS
    vectors = np.array([record["embedding"] for record in found], np.float32)
    assert np.allclose(vectors, expected(TEXTS, 8), atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_every_format_has_the_same_vectors() -> None:
    lines = "\n".join(json.dumps({"id": number, "body": text}) for number, text in enumerate(TEXTS))
    outputs = {
        name: embed("--dim", "8", "--text-field", "body", "--format", name, texts=lines).stdout
        for name in ("jsonl", "csv", "arrow", "parquet", "npy")
    }
    of_json = records(outputs["jsonl"])
    assert [record["id"] for record in of_json] == list(range(60))
    vectors = np.array([record["embedding"] for record in of_json], np.float32)
    assert np.array_equal(np.load(io.BytesIO(outputs["npy"])), vectors)
    tables = [pa.ipc.open_stream(outputs["arrow"]).read_all(), pq.read_table(io.BytesIO(outputs["parquet"]))]
    for table in tables:
        assert table.column("id").to_pylist() == [str(number) for number in range(60)]
        assert np.array_equal(np.array(table.column("embedding").to_pylist(), np.float32), vectors)
    heading, *rows = outputs["csv"].decode().splitlines()
    assert heading == '"id","embedding"' and rows[59].startswith('"59","[')


def test_ids_of_many_digits_come_back_as_they_were() -> None:
    ids = ["18446744073709551617", "-9223372036854775809", "1.5", '"x"', "9007199254740993"]
    lines = "\n".join(f'{{"id": {one}, "body": "Some text."}}' for one in ids)
    said = embed("--dim", "8", "--text-field", "body", texts=lines).stdout.decode().splitlines()
    assert [line.partition(',"embedding"')[0] for line in said] == [f'{{"id":{one}' for one in ids]


def test_what_has_no_vector_is_null_in_its_place_and_named() -> None:
    long = " ".join(["word"] * 300)
    ran = embed("--dim", "4", texts=b"one\n\n \t\n" + long.encode() + b"\n\xff\ntwo\n")
    found = [record["embedding"] for record in records(ran.stdout)]
    assert ran.returncode == 3
    assert [vector is None for vector in found] == [False, True, True, True, True, False]
    assert ran.stderr.decode().splitlines() == [
        "line 2: empty",
        "line 3: empty",
        "line 4: too long: 302 tokens, 256 at most",
        "line 5: not UTF-8",
        "error: 4 vectors of 6 texts are null: 2 empty, 1 too long, 1 not UTF-8",
        "",
        "hint: embed texts that are too long with `--long split` or `--long truncate`",
    ]


def test_a_text_of_characters_that_the_tokenizer_drops_is_empty() -> None:
    ran = embed("--dim", "4", texts="\u200b\u200b\none")
    assert ran.returncode == 3 and b"line 1: empty" in ran.stderr
    assert [record["embedding"] is None for record in records(ran.stdout)] == [True, False]


def test_a_thousand_bad_texts_are_counted_and_twenty_are_named() -> None:
    ran = embed(texts="\n" * 1000)
    lines = ran.stderr.decode().splitlines()
    assert ran.returncode == 3 and ran.stdout == b'{"embedding":null}\n' * 1000
    assert lines[19:22] == [
        "line 20: empty",
        "... more such texts are only counted",
        "error: 1,000 vectors of 1,000 texts are null: 1,000 empty",
    ]


def test_no_texts_give_no_vectors_and_load_no_model() -> None:
    ran = embed(texts="", program=[sys.executable, "-X", "importtime", "-m", "embedcli"])
    assert (ran.returncode, ran.stdout) == (0, b"")
    assert b"pyarrow" in ran.stderr and b"| torch\n" not in ran.stderr


def test_a_long_text_is_split_as_ingest_splits_or_cut() -> None:
    long = "\n\n".join(words(90, seed) for seed in range(6)).strip()
    data = f"{long}\0short\0"
    split = embed("-0", "--long", "split", "--text", "--dim", "4", texts=data)
    assert split.returncode == 0, split.stderr
    *parts, short = records(split.stdout)
    assert len(parts) > 3 and [part["chunk_index"] for part in parts] == list(range(len(parts)))
    assert "".join(part["text"] for part in parts) == long
    assert all(part["text"] == long[part["char_start"] : part["char_end"]] for part in parts)
    assert (short["text"], short["chunk_index"]) == ("short", 0)
    cut = embed("-0", "--long", "truncate", "--dim", "4", texts=data)
    assert cut.returncode == 0 and len(records(cut.stdout)) == 2


def test_files_are_read_in_the_place_of_stdin(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    ran = embed("--dim", "4", str(tmp_path / "a.txt"), "-", texts="three\n\n")
    assert ran.returncode == 3 and [record["embedding"] is None for record in records(ran.stdout)] == [0, 1, 0, 0, 1]
    assert f"`{tmp_path}/a.txt` line 2: empty\nline 2: empty\n" in ran.stderr.decode()


# ---- pipes


def shell(command: str, folder: Path, *, pipefail: bool = False) -> subprocess.CompletedProcess[str]:
    """In bash, with `embedcli` being the quick one."""
    (folder / "embedcli").write_text(f'#!/bin/sh\nexec {sys.executable} {HERE}/tests/quick_embedcli.py "$@"\n')
    (folder / "embedcli").chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{folder}:{os.environ['PATH']}"}
    options = ["-o", "pipefail"] if pipefail else []
    return subprocess.run(
        ["bash", *options, "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("zstd")), reason="jq and zstd are not installed")
def test_compressed_records_go_in_and_jq_reads_what_comes_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": f"t{n}", "text": TEXTS[n]}) + "\n" for n in range(30)))
    command = (
        "zstd -q a.jsonl && zstd -dc a.jsonl.zst | embedcli embed --model minilm --dim 4 --text-field text"
        " | jq -r '[.id, (.embedding | length)] | @tsv'"
    )
    ran = shell(command, tmp_path, pipefail=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [f"t{number}\t4" for number in range(30)]


@pytest.mark.parametrize("form", ["jsonl", "csv", "arrow", "parquet"])
def test_a_reader_that_leaves_ends_it_without_a_word(form: str, tmp_path: Path) -> None:
    """`yes` never ends: only the reader that leaves can end this."""
    command = f"yes 'a text' | embedcli embed --model minilm --format {form} | head -c 50 >/dev/null"
    ran = shell(f"{command}; echo ${{PIPESTATUS[1]}}", tmp_path)
    assert (ran.stdout, ran.stderr) == ("141\n", ""), "as of any program that SIGPIPE ends"


def test_a_vector_leaves_while_the_next_text_is_not_written_yet() -> None:
    """A conversation: each line is written when the vector of the one before has come."""
    command = [*QUICK, "embed", "--model", "minilm", "--dim", "4"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdin and process.stdout
        for _ in range(3):
            process.stdin.write(b"a line\n")
            process.stdin.flush()
            assert len(json.loads(process.stdout.readline())["embedding"]) == 4
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(("number", "code", "unbuffered"), [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, "1")])
def test_a_signal_ends_it_after_a_whole_row(number: int, code: int, unbuffered: str) -> None:
    """More rows than a pipe holds: the signal interrupts a write, of which Python's raw streams then lose the rest."""
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered}
    command = [*QUICK, "embed", "--model", "minilm", "--dim", "384"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=environment) as process:  # type: ignore[call-overload]
        process.stdin.write(b"a line\n" * 100)
        process.stdin.flush()
        first = process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
        said = process.stderr.read()
    assert process.returncode == code
    assert b"stopped; the output ends early, after a whole row" in said and b"Traceback" not in said
    assert all(len(record["embedding"]) == 384 for record in records(first + rest)) and (first + rest).endswith(b"\n")


# ---- an index


def test_the_settings_of_an_index_count(shop: Workshop) -> None:
    for number in range(3):
        shop.write(f"{number}.txt", words(150, number))
    shop.ingest(overlap=8)
    rows = shop.rows(["text", "vector"])
    ran = embed("--index", str(shop.index), "-0", texts="\0".join(row["text"] for row in rows))
    assert ran.returncode == 0, ran.stderr
    found = np.array([record["embedding"] for record in records(ran.stdout)], np.float32)
    assert np.allclose(found, np.array([row["vector"] for row in rows]), atol=1e-6)
    long = embed("--index", str(shop.index), texts=words(150, 1))
    assert long.returncode == 3 and b"64 at most" in long.stderr


def test_what_is_typed_counts_before_the_index_of_a_settings_file(shop: Workshop, tmp_path: Path) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    (tmp_path / "embedcli.toml").write_text(f'index = "{shop.index}"\nmodel = "nosuch"\ndim = 4\n')
    for flags, dim in (("", 16), ("--model minilm --dim 8", 8)):
        ran = shell(f"echo a text | embedcli embed {flags}", tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert len(json.loads(ran.stdout)["embedding"]) == dim


def test_another_engine_than_that_of_the_index_is_exit_13(shop: Workshop) -> None:
    """The index was made by the double, and MiniLM itself gives other vectors."""
    shop.write("a.txt", words(30))
    shop.ingest()
    ran = embed("--index", str(shop.index), texts="a text\n", program=PROGRAM)
    assert (ran.returncode, ran.stdout) == (13, b"")
    assert b"gives other vectors than those of the index" in ran.stderr


@pytest.mark.parametrize(
    ("flags", "code", "problem"),
    [
        (["--index", "nosuch"], 10, "is not an index"),
        (["--index", "nosuch", "--dim", "3"], 2, "`--dim` cannot be combined with `--index`"),
        (["--dim", "0"], 2, "`--dim` must be at least 1"),
        (["--dim", "1000"], 2, "more than the model's width of 384"),
        (["--max-tokens", "300"], 2, "more than the model's context of 256"),
        (["--long", "wrap"], 2, "`--long wrap` is not one of fail, split, truncate"),
        (["--format", "xml"], 2, "`--format xml` is not one of jsonl, arrow, parquet, npy, csv"),
        (["--format", "npy", "--text"], 2, "has room for vectors only"),
        (["-0", "--text-field", "a"], 2, "two different forms"),
        (["nosuch.txt"], 15, "cannot read `nosuch.txt`: there is no such file"),
    ],
)
def test_a_mistake_is_an_error_before_anything_is_written(flags: list[str], code: int, problem: str) -> None:
    ran = embed(*flags, texts="a text\n")
    assert (ran.returncode, ran.stdout) == (code, b""), ran.stderr
    assert problem in ran.stderr.decode() and b"Traceback" not in ran.stderr


def test_a_closed_stdin_is_an_error() -> None:
    command = f"exec {' '.join(QUICK)} embed --model minilm <&-"
    ran = subprocess.run(command, shell=True, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert ran.returncode == 15 and b"cannot read `-`: stdin is closed" in ran.stderr


def test_a_full_disk_under_the_output_is_exit_14(tmp_path: Path) -> None:
    ran = shell("echo a text | embedcli embed --model minilm > /dev/full", tmp_path)
    assert ran.returncode == 14 and "No space left" in ran.stderr and "Traceback" not in ran.stderr


# ---- the vectors themselves


def ours(model: str, texts: Sequence[str], place: Path, *, query: bool = False, dim: int | None = None) -> np.ndarray:
    """By torch in this process, which imports it once for all tests."""
    from embedcli.engines import torch_engine

    tools = Tools(
        resolve=lambda asked, memory: resolve.resolve(str(asked.model), report=print),
        device_kind=lambda asked: "cpu",
        open_engine=lambda model, settings, device: torch_engine.open_engine(model, dim=settings.dim, device=device),
    )
    (place / "texts").write_text("\0".join(texts))
    asked = Asked(model=model, dim=dim, query=query, long="truncate")
    shape = Shape("npy", ids=False, text=False, parts=False)
    out = io.BytesIO()
    verb.embed([str(place / "texts")], Form(null=True), asked, shape, out=out, tools=tools, say=print)
    vectors: np.ndarray = np.load(io.BytesIO(out.getvalue()))
    return vectors


def reference(folder: Path, texts: Sequence[str], *, query: bool = False, dim: int | None = None) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", truncate_dim=dim)
    encode = model.encode_query if query else model.encode_document
    return np.asarray(encode(list(texts), normalize_embeddings=True))


def test_the_vectors_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    """MiniLM, mixed lengths, texts over its limit too, cut to fewer dimensions."""
    texts = [*TEXTS[:20], "Ein Satz.", "日本語の文", words(400, 1).strip(), "x"]
    found = ours("minilm", texts, tmp_path, dim=128)
    theirs = reference(resolve.resolve("minilm", report=print).folder, texts, dim=128)
    assert (found * theirs).sum(axis=1).min() > 0.99999
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("make", [make_qwen, make_xlmr])
def test_queries_and_documents_get_the_prompts_of_the_model(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", query_prompt="Query: ", document_prompt="Passage: ")
    texts = ["the model of the night", "index of vectors, page 7"]
    found = {query: ours(str(folder), texts, tmp_path, query=query) for query in (False, True)}
    for query, vectors in found.items():
        assert (vectors * reference(folder, texts, query=query)).sum(axis=1).min() > 0.9999
    assert np.abs(found[True] - found[False]).max() > 1e-3


def test_queries_of_a_model_that_does_not_pool_its_prompt(tmp_path: Path) -> None:
    """Its engine leaves out the prompt of queries, which is longer than that of documents."""
    folder = make_xlmr(tmp_path / "model", query_prompt="A query: ", document_prompt="P: ", include_prompt=False)
    found = ours(str(folder), ["index of vectors"], tmp_path, query=True)
    assert (found * reference(folder, ["index of vectors"], query=True)).sum() > 0.9999
