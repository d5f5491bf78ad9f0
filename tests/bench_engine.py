"""Tokens per CPU second of each engine on the CPU beside sentence-transformers' `encode`, on the same mixed texts.

    PYTHONPATH=. python -m tests.bench_engine [TOKENS]     # needs the extras minilm and cpu; 60,000 tokens by default

In: nothing. Out: a table with a line an engine; what OpenVINO promises besides, the goal in brackets. Each engine runs
in a process of its own, in turns, two rounds, of which the better counts. CPU seconds are those of all threads, so that
a neighbour matters little. All start from token counts alike, ours without the time to tokenise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("index", "folder", "built", "night", "only", "what", "changed", "read", "again", "vectors", "stay")
ENGINES = ("sentence-transformers", "torch float32", "openvino float32", "openvino bfloat16")
PROMISED = {"openvino float32": 1.15, "openvino bfloat16": 2.0}
SHAPES = 2_000


def mixed_texts(tokens: int) -> list[str]:
    """Half of them full chunks, a quarter half full, a quarter short."""
    source, texts = np.random.default_rng(1), []
    while tokens > 0:
        size = int(source.choice([source.integers(5, 60), source.integers(60, 250), 250, 250]))
        texts.append(" ".join(source.choice(WORDS, size)))
        tokens -= size
    return texts


# In the process of one engine.


def rows_of(texts: list[str]) -> list[np.ndarray]:
    from embedcli.models.resolve import resolve
    from embedcli.models.tokenizer import load_tokenizer

    model = resolve("minilm", report=print)
    row_of = load_tokenizer(model.folder).row_of
    return [np.concatenate([row[: model.max_tokens - 1], row[-1:]]) for row in map(row_of, texts)]


def opened(name: str) -> Any:
    from embedcli.config import CpuFlags
    from embedcli.engines.choose import open_on_cpu
    from embedcli.models.resolve import resolve

    engine, precision = name.split()
    flags = CpuFlags(precision=precision)
    return open_on_cpu(resolve("minilm", report=print), dim=384, engine=engine, cpu=flags, say=lambda _: None)


def feed(engine: Any, rows: list[np.ndarray]) -> float:
    """The padding of the batches that the feeder made of these rows."""
    from embedcli.engines.feeder import Feeder

    feeder = Feeder(lambda: engine, on_open=lambda _: None, report=print)
    for number, row in enumerate(rows):
        feeder.add(number.to_bytes(8, "big"), row)
    feeder.flush()
    answered = 0
    while answered < len(rows):
        answered += len(feeder.finished(1.0))
    feeder.close(abort=False)
    return feeder.statistics.padding


def one(name: str, tokens: int) -> dict[str, float]:
    texts = mixed_texts(tokens)
    rows = rows_of(texts)
    if name == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        from embedcli.models.resolve import resolve

        model = SentenceTransformer(str(resolve("minilm", report=print).folder), device="cpu", local_files_only=True)
        model.encode(texts[:8])
        run: Any = lambda: model.encode(texts, show_progress_bar=False)  # noqa: E731
    else:
        engine = opened(name)
        engine.submit(rows[:4]).result()
        run = lambda: feed(engine, rows)  # noqa: E731
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    padding = run()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    total = sum(row.size for row in rows)
    return {"cpu": total / cpu_s, "wall": total / wall_s, "padding": padding if isinstance(padding, float) else 0.0}


def cosines(precision: str) -> dict[str, float]:
    """The least cosine to torch's float32 vectors at lengths from 1 to 256, alone and in one batch."""
    texts = ["What changed in the night is read again, and nothing else. " * 40]
    whole = rows_of(texts)[0]
    rows = [np.concatenate([whole[: count - 1], whole[-1:]]) for count in [*range(1, 32), *range(32, 257, 16)]]
    engines = [opened("torch float32"), opened(f"openvino {precision}")]
    wanted, alone = (np.concatenate([engine.submit([row]).result() for row in rows]) for engine in engines)
    mixed = engines[1].submit(rows).result()
    return {"alone": float((wanted * alone).sum(1).min()), "mixed": float((wanted * mixed).sum(1).min())}


def growth() -> dict[str, float]:
    """By how many MB the process grows over 2,000 shapes, the largest batch being first."""
    engine = opened("openvino bfloat16")
    most = 512
    shapes = [(rows, tokens) for tokens in range(1, 257) for rows in range(1, 65) if rows * tokens <= most]
    shapes = [shapes[place] for place in np.linspace(0, len(shapes) - 1, SHAPES).astype(int)]
    np.random.default_rng(0).shuffle(shapes)
    for rows, tokens in [(most // 256, 256), (1, 256), (64, most // 64)]:
        engine.submit([np.full(tokens, 5, np.uint32)] * rows).result()
    before = resident_mb()
    for rows, tokens in shapes:
        engine.submit([np.full(tokens, 5, np.uint32)] * rows).result()
    return {"shapes": len(set(shapes)), "grown": resident_mb() - before}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# Beside one another.


def measured(*arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench_engine", "child", *map(str, arguments)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def beside_a_neighbour(name: str, tokens: int) -> float:
    """Tokens per CPU second beside a busy process of nice 10."""
    neighbour = subprocess.Popen([sys.executable, "-c", "import os\nos.nice(10)\nwhile True: pass"])
    try:
        return measured("one", name, tokens)["cpu"]
    finally:
        neighbour.kill()
        neighbour.wait()


def main(tokens: int) -> None:
    rounds = [{name: measured("one", name, tokens) for name in ENGINES} for _ in range(2)]
    best = {name: max((found[name] for found in rounds), key=lambda one: one["cpu"]) for name in ENGINES}
    base = best["torch float32"]["cpu"]
    print(f"{'':24}{'tokens/CPU s':>14}{'tokens/s':>10}{'of torch':>10}{'promised':>10}{'padding':>9}")
    for name, found in best.items():
        promised = f"{PROMISED[name]:.2f}" if name in PROMISED else ""
        line = f"{name:24}{found['cpu']:>14,.0f}{found['wall']:>10,.0f}{found['cpu'] / base:>10.2f}{promised:>10}"
        print(line + (f"{found['padding']:>9.1%}" if found["padding"] else ""))
    for precision in ("float32", "bfloat16"):
        found = measured("cosines", precision)
        print(f"least cosine to torch, {precision}: alone {found['alone']:.6f}, mixed {found['mixed']:.6f} (0.9999)")
    found = measured("growth")
    print(f"resident memory over {found['shapes']:,.0f} shapes: +{found['grown']:.0f} MB (100)")
    name = "openvino bfloat16"
    pairs = [(measured("one", name, tokens)["cpu"], beside_a_neighbour(name, tokens)) for _ in range(2)]
    share = max(beside for _, beside in pairs) / max(alone for alone, _ in pairs)
    print(f"beside a busy process of nice 10: {share:.2f} of the rate per CPU second (0.90)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        what, *rest = sys.argv[2:]
        works: dict[str, Any] = {"one": lambda name, count: one(name, int(count)), "cosines": cosines, "growth": growth}
        print(json.dumps(works[what](*rest)))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
