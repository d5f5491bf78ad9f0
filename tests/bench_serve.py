"""Prints what 64 clients at once get from `embedcli serve`: requests/s, tokens/s beside the engine alone, p50 and p95.

    PYTHONPATH=. python tests/bench_serve.py [SECONDS] [--texts mixed 1 64] [--model minilm] [flags of serve]
    PYTHONPATH=. python tests/bench_serve.py SECONDS --at http://127.0.0.1:30000 --model NAME

In: how long each row of the table takes (5 s; the goal is stated for 60), texts a request (mixed: 1 to 16; a number:
so many), the model and flags of a server that is started here, or the address of one that runs already, such as
SGLang's own. Out: a row for each size of request, and for a server that is started here the engine alone before and
after, in its own process on the same texts. CPU seconds of the server are beside, as other work on the machine
stretches all times.

Seen on one H200 with 16 cores, random weights, vectors of full width, 7 s a row, all servers in one run, one at a time
at work. Requests/s of 1, of 1 to 16 and of 64 texts, and the median wait of those of 1:

    0.6B: ours                                    811    375    49.6     76 ms
    0.6B: SGLang's own server                     227    146    10.1    237 ms
    4B: ours as on 24 GB (`--gpu-memory 20`)      503    182    13.0    124 ms
    4B: SGLang's own server                       231     88     7.3    273 ms

No error. SGLang's server was started with `--is-embedding --attention-backend fa3` and without graphs, for which
it takes minutes. Since a full batch no longer waits for an answer, ours does 845, 418 and 61.0 with 0.6B.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil

from tests.bench_engine import WORDS

CLIENTS = 64
MIXED = (1, 1, 1, 1, 2, 4, 8, 16)
ALONE = """
import json, sys, time
from embedcli.config import CardFlags, CpuFlags
from embedcli.models.tokenizer import load_tokenizer
from embedcli.report import say
from embedcli.run.tools import make_tools
from embedcli.verbs.bench.measure import _alone
from embedcli.verbs.embed_job import Asked, settle
order = json.load(sys.stdin)
card = CardFlags(order["gpu_memory"], order["batch_tokens"], None, None)
tools = make_tools("auto", say, card=card, cpu=CpuFlags(None, None))
job = settle(Asked(model=order["model"], dim=order["dim"]), tools)
engine = tools.open_engine(job.model, job.settings, job.device)
tokens = load_tokenizer(job.model.folder, prompt=job.model.prompt)
rows = [tokens.row_of(text) for text in order["texts"]]
_alone(engine, rows[: len(rows) // 8])
used = time.process_time()
rate = _alone(engine, rows)[0]
say(f"alone: {sum(row.size for row in rows) / (time.process_time() - used):,.0f} tokens a CPU second")
print(rate)
engine.close()
"""


def text_of(chance: random.Random) -> str:
    """Half of them of 100 to 200 words, a quarter half as long, a quarter short: all within any model's limit. No text
    comes twice, for a server embeds a text once that several clients wait for."""
    size = chance.choice([chance.randint(5, 50), chance.randint(50, 100), *[chance.randint(100, 200)] * 2])
    return " ".join(chance.choices(WORDS, k=size))


def texts_of(tokens: int) -> list[str]:
    chance, texts = random.Random(1), []
    while tokens > 0:
        texts.append(text_of(chance))
        tokens -= texts[-1].count(" ") + 1
    return texts


@dataclass
class Heard:
    """What all clients got."""

    tokens: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Client:
    """One connection that is kept: requests one after the other, as plain as HTTP can be."""

    def __init__(self, address: str, model: str) -> None:
        parts = urlsplit(address)
        self._host, self._port, self._model = parts.hostname or "127.0.0.1", parts.port or 80, model

    async def work(self, sizes: tuple[int, ...], seed: int, until_s: float, heard: Heard) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        chance = random.Random(1_000 + seed)
        asked = 0
        while not asked or time.perf_counter() < until_s:
            asked += 1
            body = json.dumps(
                {"model": self._model, "input": [text_of(chance) for _ in range(chance.choice(sizes))]}
            ).encode()
            head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            started_s = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            status, answer = await _answer(reader)
            heard.seconds.append(time.perf_counter() - started_s)
            if status != 200:
                heard.errors.append(answer.decode(errors="replace")[:200])
                continue
            heard.tokens += int(re.findall(rb'"total_tokens": ?(\d+)', answer[-300:] + answer[:300])[0])
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    found = re.search(rb"content-length: (\d+)", head)
    assert found, head
    return status, await reader.readexactly(int(found[1]))


async def load(address: str, model: str, sizes: tuple[int, ...], seconds: float) -> Heard:
    heard, until_s = Heard(), time.perf_counter() + seconds
    clients = [Client(address, model).work(sizes, seed, until_s, heard) for seed in range(CLIENTS)]
    await asyncio.gather(*clients)
    return heard


@contextmanager
def started(flags: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "embedcli", "serve", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = ""
        while "ready: " not in said:
            said += (line := process.stderr.readline())
            assert line, said
        found = re.search(r"http://\S+?(?=;)", said)
        assert found
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(90)


def alone(texts: list[str], asked: argparse.Namespace) -> float:
    """tokens/s of the engine without a server."""
    order = {"texts": texts, "model": asked.model, "dim": asked.dim, "gpu_memory": asked.gpu_memory,
             "batch_tokens": asked.batch_tokens}  # fmt: skip
    command = [sys.executable, "-c", ALONE]
    ran = subprocess.run(command, input=json.dumps(order), stdout=subprocess.PIPE, text=True, check=True)
    return float(ran.stdout.splitlines()[-1])


def flags_of(asked: argparse.Namespace) -> list[str]:
    given = {"--model": asked.model, "--dim": asked.dim, "--gpu-memory": asked.gpu_memory,
             "--batch-tokens": asked.batch_tokens}  # fmt: skip
    return [word for flag, value in given.items() if value is not None for word in (flag, str(value))]


def measure(address: str, model: str, sizes: list[str], seconds: float) -> Iterator[tuple[str, Heard, float]]:
    for size in sizes:
        began_s = time.perf_counter()
        heard = asyncio.run(load(address, model, MIXED if size == "mixed" else (int(size),), seconds))
        yield size, heard, time.perf_counter() - began_s


def row(size: str, heard: Heard, elapsed_s: float) -> str:
    ordered = sorted(heard.seconds)
    p50, p95 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.95))
    return (
        f"{size:>8}{len(ordered) / elapsed_s:>12,.1f}{heard.tokens / elapsed_s:>12,.0f}{p50:>10,.0f}{p95:>10,.0f}"
        f"{len(heard.errors):>8}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("seconds", type=float, nargs="?", default=5.0)
    parser.add_argument("--texts", nargs="+", default=["mixed", "1", "64"])
    parser.add_argument("--tokens", type=int, default=40_000)
    parser.add_argument("--at")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--dim", type=int)
    parser.add_argument("--gpu-memory", type=float)
    parser.add_argument("--batch-tokens", type=int)
    asked = parser.parse_args()
    texts = texts_of(asked.tokens)
    before = 0.0 if asked.at else alone(texts, asked)
    print(f"{'texts':>8}{'requests/s':>12}{'tokens/s':>12}{'p50 ms':>10}{'p95 ms':>10}{'errors':>8}")
    if asked.at:
        for size, heard, elapsed_s in measure(asked.at, asked.model, asked.texts, asked.seconds):
            print(row(size, heard, elapsed_s), *set(heard.errors), sep="\n")
        return
    with started(flags_of(asked)) as (address, process):
        used_s = _cpu_s(process)
        for size, heard, elapsed_s in measure(address, asked.model, asked.texts, asked.seconds):
            share, spent_s, used_s = heard.tokens / elapsed_s / before, _cpu_s(process) - used_s, _cpu_s(process)
            rate = heard.tokens / max(spent_s, 1e-9)
            print(f"{row(size, heard, elapsed_s)}   {share:.2f} of the engine alone; {rate:,.0f} tokens a CPU second")
            print(*set(heard.errors), sep="\n", end="", flush=True)
    print(f"engine alone: {before:,.0f} tokens/s before, {alone(texts, asked):,.0f} after")


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    main()
