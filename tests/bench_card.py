"""What our SGLang engine does on a card: its speed, its memory, and whether its vectors are those of transformers.

    PYTHONPATH=. python tests/bench_card.py rates MODEL [WORD ...]   # tokens/s on rows of one length; 128 and 512
    PYTHONPATH=. python tests/bench_card.py equal MODEL [WORD ...]   # cosines with float32; 1 to 32,000 tokens
    PYTHONPATH=. python tests/bench_card.py small MODEL [WORD ...]   # as on 24 GB, rows of 32,000 tokens among others
    PYTHONPATH=. python tests/bench_card.py waits MODEL [WORD ...]   # how long a list takes, for a client of `serve`

In: a model folder with weights (random ones will do), a card. A word is a length, `fp8`, `card=1` for another card than
the first (with CUDA_VISIBLE_DEVICES=1), or `own` or `sglang` for one of the two forward passes: both, one after the
other, where none is named. Out: a table each. `rates` also compares 4,096 rows of mixed lengths, all in flight at once,
with the same rows sent a list at a time; `equal` does so with rows alone and in one list of 256, whole and cut to 128
dimensions. Each ends within ten minutes, whatever happens.

Seen on one H200 with random weights, beside the table in the README: 0.6B, rows of 128, four starts: 379,600 tokens/s
with SGLang's forward pass, 462,500 to 532,100 with ours (1.22 to 1.40); four more starts on two cards, two at a time:
482,700, 547,200, 548,800 and 554,200; three more, one at a time: 493,700, 562,500, 555,100; five more since vectors
leave the scheduler as bytes: 561,500, 561,200, 562,300, 561,800, 555,400. 4B on rows of 32,000 tokens: 39,400. `small`
of 4B, as on 24 GB (`--gpu-memory 20 --batch-tokens 16384`): 85,500 on rows of 200 to 512, 72,700 with rows of 32,000
among them, in 12.3 GiB; 86,200 and 73,300 without the flags. `fp8`, 1 to 8,192 tokens: the cosine of our vectors with
those of SGLang's forward pass is at least 0.9960 for 0.6B and 0.9961 for 4B (with cuBLAS, which 0.6B does not use:
0.9939 there, of 128 dimensions); with float32 both are equally far off, 0.972 to 0.988. `waits` of 0.6B, rows of 100
tokens: a list of 1 takes 13 ms, of 64 26 ms, of 256 89 ms with 128 dimensions and 84 ms with 1,024 (with lists of
floats 95 and 111 ms).
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np

from embedcli.engines.contract import Engine
from embedcli.engines.sglang.engine import open_engine
from embedcli.engines.sglang.settings import GIB, SGLangSettings
from embedcli.models.folder import Model
from embedcli.models.resolve import resolve
from embedcli.verbs.bench.measure import Peak

LIMIT_S = 590.0
SECONDS = 5.0
WARM_UP_S = 1.0
ANSWER_S = 120.0
MIXED_ROWS = 4_096
FIRST_ID, LAST_ID, END_ID = 1_000, 100_000, 151_643
EQUAL_LENGTHS = (1, 2, 17, 128, 512, 2_048, 8_192, 32_000)
LIST_ROWS = 256
ATTENTION_STEP = 512
"""Queries at a time: all of 32,000 would need 60 GB in float32."""

WAITED_ROWS = (1, 8, 64, 256)
WAITED_TOKENS = 100
WAITED_TIMES = 20

SMALL: tuple[str, dict[str, Any]] = (
    "--gpu-memory 20 --batch-tokens 16384",
    {"gpu_memory": 20, "batch_tokens": 16_384},
)
Rows = list[np.ndarray]


def random_rows(source: np.random.Generator, lengths: Sequence[int] | np.ndarray) -> Rows:
    return [source.integers(FIRST_ID, LAST_ID, length, dtype=np.uint32) for length in map(int, lengths)]


def lists_of(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each row of the one with that of the other, in float64."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


# ---- rates


def rate(engine: Engine, length: int, seconds: float, source: np.random.Generator) -> float:
    """Tokens/s with as many lists in flight as the feeder keeps there."""
    size = engine.batch_rows if length <= 512 else max(1, engine.batch_tokens // length)
    lists = lists_of(random_rows(source, np.full(8 * size, length)), size)
    flight: deque[Future[np.ndarray]] = deque()
    began, done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        while len(flight) < engine.depth:
            flight.append(engine.submit(lists[(done + len(flight)) % len(lists)]))
        flight.popleft().result(ANSWER_S)
        done += 1
    for future in flight:
        future.result(ANSWER_S)
    return done * size * length / elapsed


def worst_cosine(engine: Engine, source: np.random.Generator) -> float:
    rows = random_rows(source, source.integers(2, 512, MIXED_ROWS))
    alone = np.concatenate([engine.submit(one).result(ANSWER_S) for one in lists_of(rows, engine.batch_rows)])
    order = source.permutation(MIXED_ROWS)
    futures = [engine.submit(one) for one in lists_of([rows[place] for place in order], engine.batch_rows)]
    together = np.concatenate([future.result(ANSWER_S) for future in futures])
    return float(cosines(together, alone[order]).min())


def rates(model: Model, lengths: Sequence[int], ways: Sequence[SGLangSettings]) -> None:
    for way in ways:
        source, peak = np.random.default_rng(0), Peak(way.gpus)
        longest = max([512, *lengths])
        engine = open_engine(model, dim=128, settings=replace(way, max_tokens=longest), say=print)
        try:
            for length in lengths or (128, 512):
                rate(engine, length, WARM_UP_S, source)
                speed = rate(engine, length, SECONDS, source)
                print(f"{name_of(way):<10}{length:>6} tokens a row: {speed:>9,.0f} tokens/s", flush=True)
            worst = worst_cosine(engine, source)
        finally:
            engine.close()
        told = f"in flight together against a list at a time: cosine {worst:.6f} at worst"
        print(f"{name_of(way):<10}{told}; {(peak.stop() or 0) / GIB:.1f} GiB", flush=True)


# ---- equal


def equal(model: Model, lengths: Sequence[int], *, ways: Mapping[str, Callable[[int], Engine]], device: str) -> float:
    """Prints the cosines with transformers in float32; returns the worst. A way opens our engine at a dim; of two, the
    second is compared with the first as well."""
    source = np.random.default_rng(3)
    rows = random_rows(source, lengths)
    for row in rows:
        row[-1] = END_ID
    company = random_rows(source, source.integers(2, 513, LIST_ROWS - len(rows)))
    dims = (model.width, 128)
    ours = {
        (name, dim): alone_and_mixed(opens(dim), rows, company, source) for dim in dims for name, opens in ways.items()
    }
    reference = transformers_vectors(model, rows, dtype="float32", device=device)
    print(f"{'tokens':<21}", *(f"{length:>8}" for length in lengths))
    worst = 1.0
    for (name, dim), (alone, mixed) in ours.items():
        pairs = {"alone": (alone, reference[:, :dim]), "mixed": (mixed, reference[:, :dim]), "m/a": (mixed, alone)}
        if name != next(iter(ways)):
            pairs[f"/{next(iter(ways))}"] = (alone, ours[next(iter(ways)), dim][0])
        for kind, (one, other) in pairs.items():
            found = cosines(one, other)
            worst = min(worst, float(found.min()))
            print(f"{name:<10}{kind:<6}{dim:>5}", *(f"{cosine:8.6f}" for cosine in found), flush=True)
    for dim in dims:
        half = transformers_vectors(model, rows, dtype="bfloat16", device=device)[:, :dim]
        found = cosines(half, reference[:, :dim])
        print(f"{'its own bf16':<16}{dim:>5}", *(f"{cosine:8.6f}" for cosine in found))
    print(f"worst of ours {worst:.6f}")
    return worst


def alone_and_mixed(
    engine: Engine, rows: Rows, company: Rows, source: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the rows, each alone and all in one list with the others, in any order."""
    try:
        alone = np.concatenate([engine.submit([row]).result(ANSWER_S) for row in rows])
        everyone = [*rows, *company]
        order = source.permutation(len(everyone))
        mixed = np.empty((len(everyone), engine.dim), np.float32)
        mixed[order] = engine.submit([everyone[place] for place in order]).result(ANSWER_S)
        return alone, mixed[: len(rows)]
    finally:
        engine.close()


def transformers_vectors(model: Model, rows: Rows, *, dtype: str, device: str) -> np.ndarray:
    """The last token's state of each row, alone."""
    import torch
    from transformers import AttentionInterface, AutoModel

    torch.backends.cuda.matmul.allow_tf32 = False
    AttentionInterface.register("in_steps", attention_in_steps)
    network = AutoModel.from_pretrained(
        model.folder, dtype=getattr(torch, dtype), attn_implementation="in_steps", local_files_only=True
    )
    network = network.to(device).eval()
    with torch.inference_mode():
        ids = (torch.from_numpy(row.astype(np.int64))[None].to(device) for row in rows)
        return np.stack([network(input_ids=one).last_hidden_state[0, -1].float().cpu().numpy() for one in ids])


def attention_in_steps(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float = 1.0, **_: Any
) -> tuple[Any, None]:
    """Causal attention by its definition, softmax in float32, some queries at a time."""
    import torch

    groups, count = query.shape[1] // key.shape[1], query.shape[2]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    places, out = torch.arange(count, device=query.device), torch.empty_like(query)
    for start in range(0, count, ATTENTION_STEP):
        end = min(count, start + ATTENTION_STEP)
        weights = (query[:, :, start:end] @ key[:, :, :end].transpose(2, 3)) * scaling
        weights = weights.masked_fill(places[:end] > places[start:end, None], float("-inf"))
        out[:, :, start:end] = weights.softmax(-1, dtype=torch.float32).to(query.dtype) @ value[:, :, :end]
    return out.transpose(1, 2).contiguous(), None


# ---- small


def small(model: Model, ways: Sequence[SGLangSettings]) -> None:
    source = np.random.default_rng(0)
    short = [random_rows(source, source.integers(200, 513, 64)) for _ in range(80)]
    mixed = [[*rows, *random_rows(source, [32_000] * (number % 8 == 0))] for number, rows in enumerate(short[:72])]
    print(f"{'':46}{'200-512':>10}{'with 32,000':>13}{'card':>11}")
    flags, limits = SMALL
    tried = [(f"{name_of(way)} {flags}", replace(way, **limits)) for way in ways]
    tried += [(f"{name_of(way)} without these flags", way) for way in ways]
    for name, settings in tried:
        peak = Peak(settings.gpus)
        engine = open_engine(model, dim=128, settings=settings)
        try:
            feed(engine, short[:16])
            speeds = f"{feed(engine, short):>10,.0f}{feed(engine, mixed):>13,.0f}"
        finally:
            engine.close()
        print(f"{name:46}{speeds}{(peak.stop() or 0) / GIB:>7.2f} GiB", flush=True)


def feed(engine: Engine, lists: Sequence[Rows]) -> float:
    """Tokens/s of these lists, as many in flight as the feeder keeps there."""
    flight: deque[Future[np.ndarray]] = deque()
    began = time.perf_counter()
    for rows in lists:
        if len(flight) >= engine.depth:
            flight.popleft().result(ANSWER_S)
        flight.append(engine.submit(rows))
    for future in flight:
        future.result(ANSWER_S)
    return sum(row.size for rows in lists for row in rows) / (time.perf_counter() - began)


# ---- waits


def waits(ways: Mapping[str, Callable[[int], Engine]], dims: Sequence[int]) -> None:
    """Milliseconds from a list to its vectors with nothing else in flight: the median, of so many rows a list."""
    source = np.random.default_rng(0)
    print(f"{'ms for a list of':<20}", *(f"{rows:>8}" for rows in WAITED_ROWS), "rows")
    for name, opens_at in ways.items():
        for dim in dims:
            engine = opens_at(dim)
            try:
                took_ms = [wait_ms(engine, rows, source) for rows in WAITED_ROWS]
            finally:
                engine.close()
            print(f"{name:<14}{dim:>6}", *(f"{one:8.1f}" for one in took_ms), flush=True)


def wait_ms(engine: Engine, rows: int, source: np.random.Generator) -> float:
    took_s = []
    for _ in range(WAITED_TIMES):
        one = random_rows(source, np.full(rows, WAITED_TOKENS))
        began = time.perf_counter()
        engine.submit(one).result(ANSWER_S)
        took_s.append(time.perf_counter() - began)
    return 1_000 * float(np.median(took_s))


def name_of(way: SGLangSettings) -> str:
    return f"{way.forward} {way.quantization or ''}".strip()


def ways_of(words: Sequence[str]) -> list[SGLangSettings]:
    """The forward passes that are named, or both; SGLang's first, for ours is compared with it."""
    named = [name for name in ("sglang", "own") if name in words] or ["sglang", "own"]
    cards = [int(word.removeprefix("card=")) for word in words if word.startswith("card=")] or [0]
    quantization = "fp8" if "fp8" in words else None
    return [SGLangSettings(gpus=tuple(cards), forward=name, quantization=quantization) for name in named]


def opens(model: Model, way: SGLangSettings) -> Callable[[int], Engine]:
    return lambda dim: open_engine(model, dim=dim, settings=way, say=print)


def main(mode: str, folder: str, *words: str) -> None:
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    model = resolve(folder, report=print)
    lengths, ways = [int(word) for word in words if word.isdecimal()], ways_of(words)
    if mode == "rates":
        rates(model, lengths, ways)
    elif mode == "equal":
        equal(model, lengths or EQUAL_LENGTHS, ways={name_of(way): opens(model, way) for way in ways}, device="cuda")
    elif mode == "small":
        small(model, ways)
    else:
        waits({name_of(way): opens(model, way) for way in ways}, (128, model.width))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("rates", "equal", "small", "waits"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
