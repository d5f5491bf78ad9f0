"""The cards of one machine as Ray's workers, beside the same cards in one process; and real faults of both.

    PYTHONPATH=. python tests/cards_under_ray.py MODEL DOCS CARDS [FLAG ...]      # the flags go to every ingest

In: a model folder, documents that keep the cards at work for two minutes or more, how many cards (0: a dry run on the
CPU). Out: tokens/s of `--gpus 0,1` and of `--workers ray://auto`; then an actor is killed at work, and the engine of a
worker: seconds until all was gone, what is left that was not there before, whether the index is that of the first run.
Every step ends by itself. The lines that runs printed are kept in $OUT, or in a folder of /tmp that is named.

Seen with 0.6B and an H200 for each of two workers. 64 M tokens: 870,500 tokens/s since both were ready, 888,200 with
`--gpus 0,1` (0.98; by the run's own count 853,700 and 899,600), the same 173,191 rows, the least cosine 0.9998.
32 M tokens: a killed actor was noticed after 0.1 s, and another one was ready after 62.7 s; a killed engine was noticed
after 4.7 s, and the other worker did the rest. The rows were the same, and nothing was left on the cards; the folder
of the engine that was being started again is removed by the next one to start.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.card_faults import AT_WORK_S, RUN_S, START_S, Run, command_lines, gone, rows_of, traces
from tests.ray_cluster import RayCluster

READY = " is ready: "


def told(run: Run, status: str) -> None:
    """Since all engines were ready, too: in one process none begins before, of Ray's workers the first one does."""
    summary = run.summary
    ready_s = [at for at, line in run.lines if READY in line or "SGLang is ready" in line]
    since_all_s = run.lines[-1][0] - max(ready_s) if ready_s else 0.0
    tokens = summary.get("tokens", {}).get("embedded", 0)
    rate = f"{tokens / since_all_s:,.0f} since all were ready" if since_all_s else ""
    print(
        f"{run.name:<24} status {status}; {tokens:,} tokens, {summary.get('tokens_per_s')} tokens/s, {rate},"
        f" {summary.get('elapsed_s')} s in all",
        flush=True,
    )


def same(folder: Path, name: str) -> str:
    (ids, vectors), (other_ids, other_vectors) = (rows_of(folder / index) for index in ("whole", name))
    cosine = f"{float((vectors * other_vectors).sum(axis=1).min()):.6f}" if ids == other_ids else "-"
    return f"{len(other_ids):,} rows, the same {ids == other_ids}, least cosine {cosine}"


def killed(cluster: RayCluster, folder: Path, run: Run, name: str, victim: Callable[[], int], workers: int) -> None:
    """Kill a process while all workers are at work, and see the run through."""
    before = traces()
    if not run.wait_for(READY, times=workers, timeout_s=START_S):
        print(f"{name}: the workers did not come up")
    time.sleep(AT_WORK_S)
    began_s, pid = time.monotonic(), victim()
    os.kill(pid, signal.SIGKILL)
    lost = "is restarted" if "engine" in name else " is lost: "
    noticed = run.seconds_until(lost, since=began_s, timeout_s=90.0)
    again = run.seconds_until("SGLang is ready" if "engine" in name else READY, since=began_s, timeout_s=START_S)
    status = run.end(RUN_S)
    seconds, left = gone(before)
    told(run, status)
    print(f"  noticed after {noticed} s, ready again after {again} s, gone after {seconds} s, left: {left}")
    print(f"  {same(folder, name)}; actors left {cluster.workers()}", flush=True)


def engine_of_a_worker(cluster: RayCluster) -> int:
    """SGLang's scheduler, which owns the card; on the CPU the engine is in the worker, so there a reader is taken."""
    words = command_lines()
    ours = [pid for pid in cluster.pids() if "sglang::scheduler" in words.get(pid, "")]
    return (ours or cluster.ours())[0]


def main(model: str, docs: str, cards: int, *flags: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="cards-under-ray-", dir=os.environ.get("OUT")))
    print(f"lines and indexes are in {folder}")
    arguments = [docs, "--model", model, "--dim", "128", *flags]
    here = ["--gpus", ",".join(map(str, range(cards)))] if cards else ["--device", "cpu"]
    there = ["--workers", "ray://auto", *([] if cards else ["--device", "cpu"])]
    before = traces()
    run = Run("one process", [*arguments, *here, "--index", str(folder / "whole")], folder)
    told(run, run.end(RUN_S))
    print(f"  gone after {' s, left: '.join(gone(before))}")
    with RayCluster([2], cards=cards) as cluster:
        os.environ.update(cluster.environment)
        before = traces()
        run = Run("workers", [*arguments, *there, "--index", str(folder / "workers")], folder)
        told(run, run.end(RUN_S))
        print(f"  gone after {' s, left: '.join(gone(before))}; {same(folder, 'workers')}", flush=True)
        for name, victim in (
            ("actor killed", lambda: cluster.workers()[0]),
            ("engine killed", lambda: engine_of_a_worker(cluster)),
        ):
            run = Run(name, [*arguments, *there, "--index", str(folder / name)], folder)
            killed(cluster, folder, run, name, victim, max(1, cards))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
