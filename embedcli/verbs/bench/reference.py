"""sentence-transformers with its defaults on given texts: `embedcli bench` compares with it, in a process of its own.

In: one JSON object on stdin (folder, device, texts). Out: the seconds that `encode` took, on stdout; loading and a
warm-up are not counted. On a card the model runs in bfloat16, as our engine does.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    from sentence_transformers import SentenceTransformer

    order: dict[str, Any] = json.load(sys.stdin)
    options = {"dtype": "bfloat16"} if order["device"] == "cuda" else {}
    model = SentenceTransformer(order["folder"], device=order["device"], model_kwargs=options)
    texts: list[str] = order["texts"]
    model.encode(texts[:8])
    started = time.perf_counter()
    model.encode(texts, show_progress_bar=False)
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
