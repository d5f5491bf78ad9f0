"""Prints how well and how fast an index is searched.

    PYTHONPATH=. python tests/bench_search.py [questions|rows|scan] [SIZE] [FOLDER]

`questions`: our 80 questions over their documents, with MiniLM: how many first hits are right, by mode and kind.
`rows`: SIZE rows (1,000,000) of 128 dimensions and 80 made-up words: building the cache; CPU seconds and memory of a
query, cold and warm, beside DuckDB on the same Parquet; whether 200 queries give the rows of float32 over every row.
With FOLDER the index is made there, and used again.
`scan`: SIZE vectors (10,000,000) of 128 dimensions without text: CPU seconds of a warm query.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from embedcli import fingerprints
from embedcli.columns import READ_SCHEMA
from embedcli.config import IndexSettings
from embedcli.fingerprints import Fingerprints
from embedcli.index import documents, shards
from embedcli.index.documents import DocumentRow
from embedcli.index.generations import Index, current_of
from embedcli.index.publish import Draft, publish
from embedcli.index.shards import Shard
from embedcli.models import resolve
from embedcli.records import Root, digest
from embedcli.run.tools import make_tools
from embedcli.search import fuse, postings, sealed, searcher, sidecars
from embedcli.search.complete import complete
from embedcli.search.scan import Vectors
from embedcli.search.searcher import MODES, Searcher
from embedcli.search.sidecars import Sidecar
from embedcli.vault.disk import Disk
from embedcli.verbs import search
from tests.questions.questions import KINDS, QUESTIONS, is_right, write_documents

import pyarrow as pa  # isort: skip

HERE = Path(__file__).parent
DIM, WORDS, SHARD_ROWS, DOCUMENT_ROWS = 128, 80, 100_000, 100
ROOT = Root("0" * 32, "/corpus")


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ran(command: list[str]) -> tuple[float, str]:
    """CPU seconds and stdout of a whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


# ---- questions


def questions() -> None:
    with tempfile.TemporaryDirectory() as folder:
        finder = opened_questions(Path(folder))
        print(f"first hit right, of {' + '.join(f'{len(asked)} {kind}' for kind, asked in KINDS.items())}")
        for mode in reversed(MODES):
            print(f"{mode:<28}{figures(right(finder, mode))}")
        for share in (0.4, 0.5, 0.6, 0.7, 0.8):
            searcher.cosine_share = lambda _, share=share: share  # type: ignore[assignment, misc]
            print(f"{f'hybrid, share {share}':<28}{figures(right(finder, 'hybrid'))}")
        searcher.cosine_share = lambda _: None  # type: ignore[assignment]
        for gate in (0.0, 0.4, 0.5):
            fuse.LEAST_COVERAGE = gate
            print(f"{f'by rank, coverage from {gate}':<28}{figures(right(finder, 'hybrid'))}")


def figures(counts: Counter[str]) -> str:
    return "  ".join(f"{counts[kind]:>3} {kind}" for kind in KINDS) + f"  {counts.total():>3} in all"


def opened_questions(folder: Path) -> Searcher:
    """An index of the documents, by MiniLM itself."""
    (folder / "docs").mkdir()
    write_documents(folder / "docs")
    command = [sys.executable, "-m", "embedcli", "ingest", str(folder / "docs"), "--index", str(folder / "index")]
    subprocess.run([*command, "--model", "minilm", "--max-tokens", "96", "--quiet"], check=True)
    return real_searcher(Index(folder / "index", disk=Disk()))


def real_searcher(index: Index) -> Searcher:
    return search.searcher(index, lambda engine: make_tools(engine, print), print)


def right(finder: Searcher, mode: str) -> Counter[str]:
    return Counter(
        question.kind
        for question in QUESTIONS
        if (hits := finder.search(question.text, k=1, mode=mode).hits) and is_right(question, hits[0].row["text"])
    )


# ---- rows


def rows(count: int, kept: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        index = Index((kept or Path(folder)) / "index", disk=Disk())
        if index.linked_number() is None:
            synthetic(index, count)
        build(index)
        for name, asked in (("duckdb", 1), *((name, 40) for name in MODES), ("duckdb", 6)):
            seconds, out = ran([sys.executable, __file__, f"_{name}", str(index.folder), str(asked)])
            print(f"{name}, {asked} queries: {out.strip()}; the process {seconds:.2f} CPU s", flush=True)
        print(exactness(index, 200), flush=True)
        query = "how long is the battery guaranteed"
        for mode in MODES:
            command = [sys.executable, "-m", "embedcli", "search", query, str(index.folder), "--json", "--mode", mode]
            seconds = sorted(ran(command)[0] for _ in range(3))[1]
            print(f"cold, {mode}: {seconds:.2f} CPU s a process, the model included", flush=True)


def synthetic(index: Index, count: int) -> None:
    """Publish an index of so many rows, as MiniLM would have made it."""
    index.create()
    model = resolve.resolve("minilm", report=print)
    chance = np.random.default_rng(0)
    known, table, made = vocabulary(), [], {}
    for start in range(0, count, SHARD_ROWS):
        part = min(SHARD_ROWS, count - start)
        keys = chance.integers(1, 1 << 63, (2, part)).astype(np.uint64)
        shard = shards.write_shard(
            list(tables(start, part, known, chance)), keys, dim=DIM, folder=index.staging, keys_folder=index.staging,
            disk=index.disk,
        )  # fmt: skip
        made[shard.name] = shard
        table += [
            document(start + row, shard, row, min(DOCUMENT_ROWS, part - row)) for row in range(0, part, DOCUMENT_ROWS)
        ]
    settings = IndexSettings(
        "minilm", None, model.weights_digest, model.tokenizer_digest, DIM, 512, 0, False, "cpu", 1 << 28, None
    )
    prints = Fingerprints(fingerprints.model_fingerprint(model.fingerprint, None), "c", "r")
    draft = Draft(
        number=1, complete=True, settings=settings, fingerprints=prints, roots=(ROOT,), mounts={},
        query=resolve.query_recipe(model, DIM, quantization=None, precisions=()), probe=np.zeros((0, DIM), np.float32),
        probe_max_tokens=512, table=documents.from_rows(table),
        changes=pa.table({"chunk_id": pa.array([], pa.string()), "op": pa.array([], pa.string())}), shards=made,
    )  # fmt: skip
    publish(index, draft, parent=None, lock_held=lambda: True)


def vocabulary() -> np.ndarray:
    """50,000 made-up words."""
    chance = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    return np.array(["".join(chance.choice(letters, size)) for size in chance.integers(2, 10, 50_000)], object)


def tables(first: int, count: int, known: np.ndarray, chance: np.random.Generator) -> Iterator[pa.Table]:
    """Rows whose n-th word is n times as rare as the first, and vectors around 2,000 centres."""
    rare = np.cumsum(1 / np.arange(1, len(known) + 1))
    centres = np.random.default_rng(2).standard_normal((2_000, DIM), np.float32)
    for start in range(first, first + count, 10_000):
        size = min(10_000, first + count - start)
        drawn = known[np.searchsorted(rare, chance.random((size, WORDS)) * rare[-1])]
        vectors = centres[chance.integers(0, 2_000, size)] + chance.standard_normal((size, DIM), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        numbers = range(start, start + size)
        values = {
            "chunk_id": [digest(str(number)) for number in numbers],
            "doc_id": [digest(ROOT.id, str(number // DOCUMENT_ROWS)) for number in numbers],
            "uri": [f"/corpus/{number // DOCUMENT_ROWS}.txt" for number in numbers],
            "path": [f"{number // DOCUMENT_ROWS}.txt" for number in numbers],
            "chunk_index": [number % DOCUMENT_ROWS for number in numbers],
            "text": [" ".join(line) for line in drawn.tolist()],
        }  # fmt: skip
        columns = [pa.array(values.get(field.name, [None] * size), field.type) for field in READ_SCHEMA]
        yield shards.complete_rows(pa.table(columns, schema=READ_SCHEMA), vectors, changed_in=1, keep=None)


def document(number: int, shard: Shard, first_row: int, count: int) -> DocumentRow:
    path = f"{number // DOCUMENT_ROWS}.txt"
    return DocumentRow(
        root=ROOT.id, path=path, uri=f"/corpus/{path}", size=5000, mtime_ns=0, ctime_ns=0, inode=number,
        sha256=None, model_fingerprint="m", chunk_fingerprint="c", read_fingerprint="r",
        status="indexed", reason=None, chunks=count, tokens=100, shard=shard.name, first_row=first_row, rows=count,
    )  # fmt: skip


def build(index: Index) -> None:
    """What the cache of the first shard costs, all of it and the words alone; then that of every shard."""
    generation = current_of(index)
    (shard, *_) = generation.shards.values()
    read = shards.read_rows(shard.path, [(0, shard.rows)], ["text"])
    texts = [text for table in read for text in table["text"].to_pylist()]
    for name, make in (
        ("cache", lambda: sidecars.build(shard, with_text=True)),
        ("words of it", lambda: postings.build(texts)),
    ):
        started = cpu_s()
        size = sum(array.nbytes for array in make().values())
        rate = shard.rows / (cpu_s() - started)
        print(f"{name}: {rate:,.0f} chunks per CPU s, {size / shard.rows:.0f} bytes a chunk", flush=True)
    complete(index)


def queries(index: Index, count: int) -> np.ndarray:
    """Unit vectors near the rows [count, dim]."""
    chance = np.random.default_rng(9)
    (shard, *_) = current_of(index).shards.values()
    stored = np.concatenate(
        [shards.vectors_of(t["vector"]) for t in shards.read_rows(shard.path, [(0, count)], ["vector"])]
    )
    moved = stored + 0.05 * chance.standard_normal(stored.shape, np.float32)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


class GivenVectors:
    """In place of a model: the next of some vectors, whatever the text."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._next = iter(vectors)

    def of(self, *_: Any) -> np.ndarray:
        vector: np.ndarray = next(self._next)
        return vector


def ours(folder: str, mode: str, count: int) -> None:
    index = Index(Path(folder), disk=Disk())
    asked = queries(index, count)
    text = " ".join(vocabulary()[[0, 3, 40, 900, 7_000, 30_000]])
    finder = Searcher(index, GivenVectors(asked))  # type: ignore[arg-type]
    seconds = []
    for _ in asked:
        started = cpu_s()
        assert len(finder.search(text, mode=mode).hits) == 10
        seconds.append(cpu_s() - started)
    print(f"first {seconds[0]:.3f}, warm {np.median(seconds[1:] or seconds):.3f} CPU s, {peak()}")


def peak() -> str:
    """Of this program alone: what getrusage tells includes the process that started it."""
    status = Path("/proc/self/status").read_text()
    return f"peak RSS {int(status.partition('VmHWM:')[2].split()[0]) / 1024:,.0f} MB"


def duck(folder: str, count: int) -> None:
    import duckdb

    asked = queries(Index(Path(folder), disk=Disk()), count)
    sql = (
        f"select path, chunk_index, text, array_cosine_similarity(vector::float[{DIM}], ?::float[{DIM}]) as score"
        f" from '{folder}/current/vectors/*.parquet' order by score desc limit 10"
    )
    seconds = []
    for query in asked:
        started = cpu_s()
        assert len(duckdb.execute(sql, [query.tolist()]).fetchall()) == 10
        seconds.append(cpu_s() - started)
    print(f"first {seconds[0]:.3f}, warm {np.median(seconds[1:] or seconds):.3f} CPU s, {peak()}")


def exactness(index: Index, count: int) -> str:
    view = Searcher(index, GivenVectors(np.zeros((0, DIM)))).view()  # type: ignore[arg-type]
    stored = np.concatenate([one.arrays.whole("float32") for one in view.vectors._sidecars])
    same = 0
    for query in queries(index, count):
        expected = stored @ query
        tenth = np.partition(expected, -10)[-10]
        rows_found, _ = view.vectors.nearest(query, 10)
        same += bool((expected[rows_found] >= tenth - 1e-6).all()) and len(set(rows_found.tolist())) == 10
    return f"the ten rows of float32 over every row: {same} of {count} queries"


# ---- scan


def scan(count: int) -> None:
    """In shards of half a million rows, memory-mapped, as sidecars are."""
    nowhere = Shard("part-0", 0, 0, "", "", Path(), Path())
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for number, start in enumerate(range(0, count, 500_000)):
            vectors = np.random.default_rng(number).standard_normal((min(500_000, count - start), DIM), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            int8, scales, error = sidecars.quantise(vectors)
            ids = np.arange(start, start + len(vectors), dtype=np.uint64)
            arrays = {"int8": int8, "scales": scales, "float32": vectors, "ids": ids, "error": np.array([error])}
            file = Path(folder) / f"{number}.search"
            with file.open("wb") as sink:
                sealed.write(sink, {}, arrays)
            stored = sealed.load(file, {})
            assert stored is not None
            parts.append(Sidecar(nowhere, stored))
        found = Vectors(parts)
        seconds = []
        for query in np.random.default_rng(7).standard_normal((12, DIM), np.float32):
            started = cpu_s()
            found.nearest(query / np.linalg.norm(query), 10)
            seconds.append(cpu_s() - started)
    print(f"scan of {count:,} x {DIM}: first {seconds[0]:.3f}, warm {np.median(seconds[2:]):.3f} CPU s")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(HERE.parent))
    what, *size = sys.argv[1:] or ["questions"]
    if what == "questions":
        questions()
    elif what == "rows":
        rows(int(size[0]) if size else 1_000_000, Path(size[1]) if len(size) > 1 else None)
    elif what == "scan":
        scan(int(size[0]) if size else 10_000_000)
    elif what == "_duckdb":
        duck(size[0], int(size[1]))
    else:
        ours(size[0], what.removeprefix("_"), int(size[1]))
