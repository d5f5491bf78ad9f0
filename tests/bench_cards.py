"""Whole runs with one card and with several over the same documents, each card's engine opened once for all of them.

    PYTHONPATH=. python tests/bench_cards.py MODEL MB CARDS [fp8]       # e.g. /models/0.6b 110 0,1

In: a model folder, how much text to generate, the cards. Out: tokens/s from the first document to the published
generation with the first card, then with all of them; how many times the one the other is.
`embedcli bench --gpus` opens the engines for each figure anew, which takes longer than a run of a minute.

Seen on two H200, random weights, 369 tokens a chunk: 0.6B 555,100 and 1,069,200 tokens/s (1.926; 47.6 M tokens),
4B 86,500 and 171,400 (1.981; 13.2 M tokens).
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from embedcli.config import Options
from embedcli.engines.contract import Engine
from embedcli.engines.nvml import Card, read_cards
from embedcli.engines.several_cards import open_on_all
from embedcli.engines.sglang.engine import open_engine
from embedcli.engines.sglang.settings import SGLangSettings
from embedcli.models.folder import Model
from embedcli.models.resolve import resolve
from embedcli.run.tools import Tools, make_tools
from embedcli.verbs.bench.measure import Watched, generate, timed_run

DIM = 128


def opened(model: Model, cards: Sequence[Card], quantization: str | None) -> dict[Card, Engine]:
    """The engine of each card, started at the same time."""

    def start(card: Card) -> Engine:
        settings = SGLangSettings(gpus=(card.index,), quantization=quantization, max_tokens=512)
        return open_engine(model, dim=DIM, settings=settings, say=lambda line: print(line, flush=True))

    with ThreadPoolExecutor(len(cards)) as threads:
        return dict(zip(cards, threads.map(start, cards), strict=True))


def whole(asked: Options, tools: Tools, engines: dict[Card, Engine]) -> float:
    """Tokens/s of a run into a new index; the engines stay open."""

    def start(card: Card, _: threading.Event) -> Engine:
        return Watched(engines[card])

    def open_all(*_: object) -> Engine:
        cards = list(engines)
        return start(cards[0], threading.Event()) if len(cards) == 1 else open_on_all(cards, start, warn=print)

    with tempfile.TemporaryDirectory(prefix="embedcli-cards-") as folder:
        into = replace(asked, index=Path(folder) / "index")
        summary, took_s = timed_run(into, replace(tools, open_engine=open_all))
    tokens = summary.tokens["embedded"]
    names = ",".join(str(card.index) for card in engines)
    print(f"--gpus {names:<8}{tokens:>12,} tokens in {took_s:6.1f} s: {tokens / took_s:>11,.0f} tokens/s", flush=True)
    return float(tokens / took_s)


def main(folder: str, megabytes: str, numbers: str, quantization: str | None = None) -> None:
    model, cards = resolve(folder, report=print), read_cards(tuple(map(int, numbers.split(","))))
    with ExitStack() as stack:
        docs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embedcli-docs-")))
        writing = threading.Thread(target=generate, args=(docs, int(float(megabytes) * 1e6)))
        writing.start()
        engines = opened(model, cards, quantization)
        for engine in engines.values():
            stack.callback(engine.close)
        writing.join()
        asked = Options(
            index=docs, sources=(str(docs),), model=folder, dim=DIM, max_tokens=512, quantization=quantization
        )
        tools = make_tools("auto", print)
        one = whole(asked, tools, {cards[0]: engines[cards[0]]})
        print(f"{len(cards)} cards: {whole(asked, tools, engines) / one:.3f} times one")


if __name__ == "__main__":
    main(*sys.argv[1:])
