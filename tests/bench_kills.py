"""Prints how much work a first run repeats that was killed at 25, 50 and 75 % of its chunks.

    PYTHONPATH=. python tests/bench_kills.py [TOKENS_PER_S] [FOLDER]

The program runs with an engine that takes its time (8,000 tokens/s) over FOLDER, or over generated documents, a minute
of work. It is killed without warning, and run again; repeated are the chunks that both runs embedded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from embedcli.cli import main  # noqa: E402
from embedcli.models.folder import Model  # noqa: E402
from tests.fake_engines import FakeEngine  # noqa: E402

SHARES = (0.25, 0.5, 0.75)
KEY_BYTES = 8


class LoggedEngine(FakeEngine):
    """Takes `tokens_per_s`, and writes the key of each row that it has answered."""

    vocabulary = None

    def __init__(self, *, dim: int, tokens_per_s: float, log: int) -> None:
        super().__init__(dim=dim, depth=1)
        self.tokens_per_s = tokens_per_s
        self.file = log
        self.probing = 18

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        if self.probing > 0:
            self.probing -= len(rows)
            return super().submit(rows)
        time.sleep(sum(row.size for row in rows) / self.tokens_per_s)
        os.write(self.file, b"".join(hashlib.blake2b(row.tobytes(), digest_size=KEY_BYTES).digest() for row in rows))
        return super().submit(rows)


def child(tokens_per_s: float, log: str, arguments: list[str]) -> None:
    """Be the program, over this engine."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def open_engine(model: Model, *, dim: int, device: str, threads: int | None) -> LoggedEngine:
        return LoggedEngine(dim=dim, tokens_per_s=tokens_per_s, log=file)

    module = types.ModuleType("embedcli.engines.torch_engine")
    module.open_engine = open_engine  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    sys.argv[1:] = arguments
    main.main()


def killed_at(share: float, chunks: int, docs: Path, folder: Path, tokens_per_s: float) -> tuple[float, int, int]:
    """(seconds until the kill, chunks that had been embedded by then, chunks that were embedded twice)."""
    log, index = folder / "rows.log", folder / "index"
    program = [sys.executable, __file__, "--child", str(tokens_per_s), str(log)]
    command = [*program, "ingest", str(docs), "--index", str(index), "--model", "minilm", "--quiet"]
    command += ["--engine", "torch"]  # whose module `child` replaces
    started_s = time.monotonic()
    with subprocess.Popen(command) as run:
        while run.poll() is None and (log.stat().st_size if log.exists() else 0) < share * chunks * KEY_BYTES:
            time.sleep(0.05)
        run.kill()
    killed_after_s = time.monotonic() - started_s
    before = log.stat().st_size // KEY_BYTES if log.exists() else 0
    if not before:
        raise SystemExit("the run embedded nothing with the engine of this script")
    if subprocess.run(command).returncode not in (0, 3):
        raise SystemExit("the second run failed")
    keys = np.frombuffer(log.read_bytes(), np.uint64)
    shutil.rmtree(index)
    log.unlink()
    return killed_after_s, before, keys.size - np.unique(keys).size


def run(tokens_per_s: float, docs: Path | None) -> None:
    from embedcli.verbs.bench.measure import generate

    with tempfile.TemporaryDirectory(prefix="bench-kills-") as name:
        folder = Path(name)
        if docs is None:
            docs = folder / "docs"
            docs.mkdir()
            generate(docs, 1_200_000)
        looked = subprocess.run(
            [sys.executable, "-m", "embedcli", "ingest", str(docs), "--index", folder / "index", "--model", "minilm",
             "--dry-run", "--json", "--quiet"], capture_output=True, check=True,
        )  # fmt: skip
        said = json.loads(looked.stdout)
        chunks, tokens = said["chunks"]["embedded"], said["tokens"]["embedded"]
        print(f"{chunks:,} chunks, {tokens:,} tokens, {tokens / tokens_per_s:.0f} s at {tokens_per_s:,.0f} tokens/s")
        for share in SHARES:
            after_s, before, twice = killed_at(share, chunks, docs, folder, tokens_per_s)
            part = f"{twice:,} of {before:,} chunks repeated, {twice / max(1, before):.0%}"
            print(f"killed at {share:.0%}, after {after_s:.0f} s: {part}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        given = sys.argv[1:]
        run(float(given[0]) if given else 8_000.0, Path(given[1]) if len(given) > 1 else None)
