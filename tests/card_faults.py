"""Real faults of a run on a card, one after another: killed, stopped, starved; and what is left of each.

    PYTHONPATH=. python tests/card_faults.py MODEL DOCS [FLAG ...]      # the flags go to every ingest

In: a model folder, documents that keep the card at work for a minute or more; with `--gpus 0,1` or more of them, for
three minutes: there the one fault is that a card is lost, and comes back. Out: a line a fault, as soon as it is
over: seconds until it was noticed, until the engine was ready again, until all was gone, the exit status, what is left
that was not there before; then whether the index that went through all of this is the one of a run without a fault.
Every step ends by itself; a run that does not is killed and told as such. The lines that runs printed are kept in
$OUT, or in a folder of /tmp that is named.

Seen with 0.6B on two H200: a card is lost at work, which the run notices after 1.0 s; nothing is left of it, and of
86,647 rows all are those of a run without a fault, the least cosine 0.999996.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds

from embedcli.engines.nvml import read_cards
from embedcli.engines.sglang.engine import open_engine
from embedcli.engines.sglang.guard import group_members
from embedcli.engines.sglang.settings import GIB, SGLangSettings
from embedcli.errors import EngineError
from embedcli.models.resolve import resolve

DIM = 128
START_S = 300.0
RUN_S = 600.0
NOTICE_S = 90.0
GONE_S = 15.0
AT_WORK_S = 5.0
HOG_LEAVES_BYTES = GIB // 2
HOG_BATCH_TOKENS = 300_000
"""Far more than a warm-up of 64 rows has taken: the first batches must ask the card for memory, and it has none."""

HOG = f"""
import sys, torch
torch.zeros(1, device="cuda")
print("here", flush=True)
sys.stdin.readline()
free, _ = torch.cuda.mem_get_info()
held = torch.empty(max(1, free - {HOG_LEAVES_BYTES}), dtype=torch.uint8, device="cuda")
print(f"{{held.numel() / {GIB}:.1f}} GiB", flush=True)
sys.stdin.readline()
"""


# ---- what is there


@dataclass(frozen=True)
class Traces:
    """What runs may leave: memory of the card, processes, files."""

    card_bytes: int
    things: frozenset[str]

    def since(self, before: Traces) -> str:
        left = sorted(self.things - before.things)
        grown = self.card_bytes - before.card_bytes
        if grown > GIB // 4:
            left.append(f"{grown / GIB:.1f} GiB of the card")
        return ", ".join(left)[:120] or "nothing"


def traces() -> Traces:
    files = [*Path("/tmp").glob("embedcli-[0-9]*"), *Path("/dev/shm").glob("sglang*"), *Path("/dev/shm").glob("sem.*")]
    processes = {
        f"{pid} {words[:40]}"
        for pid, words in command_lines().items()
        if "sglang.guard" in words or "sglang" in words or "embedcli ingest" in words
    }
    return Traces(card_bytes(), frozenset(processes | set(map(str, files))))


def card_bytes() -> int:
    try:
        return sum(card.total_bytes - card.free_bytes for card in read_cards())
    except EngineError:
        return 0


def command_lines() -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(folder.name) != os.getpid() and "card_faults" not in words:
            found[int(folder.name)] = words
    return found


# ---- a run


@dataclass
class Run:
    """`embedcli ingest` with its lines and their times."""

    name: str
    arguments: list[str]
    folder: Path
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "embedcli", "ingest", "--json", "--checkpoint-every", "2", *self.arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.out: list[str] = []
        self._followers = [
            threading.Thread(target=self._follow, args=(self.process.stderr, self._heard), daemon=True),
            threading.Thread(target=self._follow, args=(self.process.stdout, self.out.append), daemon=True),
        ]
        for follower in self._followers:
            follower.start()

    def _follow(self, stream: Any, take: Callable[[str], None]) -> None:
        for line in stream:
            take(line.rstrip())

    def _heard(self, line: str) -> None:
        self.lines.append((time.monotonic(), line))

    def wait_for(self, text: str, *, times: int = 1, timeout_s: float) -> bool:
        """Until so many lines have had the text; False where that does not come."""
        give_up_s = time.monotonic() + timeout_s
        while sum(text in line for _, line in self.lines) < times:
            if time.monotonic() > give_up_s or (self.process.poll() is not None and not self._followers[0].is_alive()):
                return False
            time.sleep(0.02)
        return True

    def seconds_until(self, text: str, *, since: float, timeout_s: float) -> str:
        """From `since` to the first such line after it; `never` where it does not come."""
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            for at, line in list(self.lines):
                if at >= since and text in line:
                    return f"{at - since:.1f}"
            if self.process.poll() is not None and not self._followers[0].is_alive():
                break
            time.sleep(0.02)
        return "never"

    def work(self, *, cards: int = 1) -> bool:
        """Until its engine has been at work for a while."""
        if not self.wait_for("SGLang is ready", times=cards, timeout_s=START_S):
            return False
        time.sleep(AT_WORK_S)
        return self.process.poll() is None

    def end(self, timeout_s: float) -> str:
        """Its exit status, and `hung` where it had to be killed."""
        hung = ""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            hung = " (hung)"
        for follower in self._followers:
            follower.join(GONE_S)
        first_s = self.lines[0][0] if self.lines else 0.0
        told = [f"{at - first_s:8.1f} {line}" for at, line in self.lines] + self.out
        (self.folder / f"{self.name.replace(' ', '-')}.log").write_text("\n".join(told) + "\n")
        return f"{self.process.wait()}{hung}"

    def victim(self) -> int:
        """The process that owns the card: SGLang's scheduler; where there is none, the youngest of the host's group."""
        words = command_lines()
        guard = next(pid for pid, line in words.items() if "sglang.guard" in line and f", {self.process.pid})" in line)
        members = sorted(group_members(guard) - {guard})
        return next((pid for pid in members if "sglang::scheduler" in words.get(pid, "")), members[-1])

    @property
    def summary(self) -> dict[str, Any]:
        """What `--json` printed, empty where it came to nothing."""
        try:
            found: dict[str, Any] = json.loads(self.out[-1])
        except (IndexError, ValueError):
            return {}
        return found


# ---- the faults


COLUMNS = (("fault", 26), ("noticed", 8), ("ready again", 12), ("gone", 6), ("status", 12), ("left", 0))


def tell(*cells: str) -> None:
    print("".join(f"{cell:<{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)), flush=True)


def gone(before: Traces) -> tuple[str, str]:
    """(seconds until nothing is left, what is left all the same)."""
    began = time.monotonic()
    while (left := traces().since(before)) != "nothing" and time.monotonic() - began < GONE_S:
        time.sleep(0.1)
    return f"{time.monotonic() - began:.1f}", left


@dataclass
class Faults:
    """`ingest` are the arguments of each run, less the index."""

    model: str
    ingest: list[str]
    folder: Path

    def __post_init__(self) -> None:
        self.before = traces()
        several = re.search(r"--gpus[= ](\S+)", " ".join(self.ingest))
        self.cards = len(several[1].split(",")) if several else 1

    def run(self, name: str, *flags: str, index: str = "faults") -> Run:
        arguments = [*self.ingest, "--index", str(self.folder / index), *flags]
        return Run(name, arguments, self.folder)

    def whole(self) -> None:
        run = self.run("none", index="whole")
        status = run.end(RUN_S)
        seconds, left = gone(self.before)
        tell("none", "", "", seconds, status, left)
        chunks, rate = run.summary.get("chunks"), run.summary.get("tokens_per_s")
        print(f"  {chunks}, {rate} tokens/s, {run.summary.get('elapsed_s')} s")

    def scheduler_killed(self) -> None:
        """And then, at work again, the run itself."""
        run = self.run("scheduler killed")
        noticed = ready = "never"
        if run.work():
            began = time.monotonic()
            os.kill(run.victim(), signal.SIGKILL)
            noticed = run.seconds_until("the engine is restarted", since=began, timeout_s=NOTICE_S)
            ready = run.seconds_until("SGLang is ready", since=began, timeout_s=START_S)
            time.sleep(AT_WORK_S)
        tell("scheduler killed", noticed, ready, "", "", "")
        self.quote(run, "is restarted")
        self.kill(run, "kill -9 at work")

    def one_card_lost(self) -> None:
        """The others go on, and later all of them."""
        run = self.run("one card lost")
        noticed = ready = "never"
        if run.work(cards=self.cards):
            began = time.monotonic()
            os.kill(run.victim(), signal.SIGKILL)
            noticed = run.seconds_until("is lost", since=began, timeout_s=NOTICE_S)
            ready = run.seconds_until("is back", since=began, timeout_s=START_S)
        status = run.end(RUN_S)
        seconds, left = gone(self.before)
        tell("one card lost", noticed, ready, seconds, status, left)
        self.quote(run, "at work")
        print(f"  {run.summary.get('tokens_per_s')} tokens/s, {run.summary.get('elapsed_s')} s")

    def killed_while_it_starts(self) -> None:
        run = self.run("kill -9 while it starts")
        run.wait_for("starting SGLang", timeout_s=START_S)
        time.sleep(AT_WORK_S)
        self.kill(run, "kill -9 while it starts")

    def kill(self, run: Run, name: str) -> None:
        run.process.kill()
        seconds, left = gone(self.before)
        tell(name, "", "", seconds, run.end(GONE_S), left)

    def stopped(self) -> None:
        run = self.run("Ctrl-C at work")
        run.work()
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        status = run.end(NOTICE_S)
        seconds = f"{time.monotonic() - began:.1f}"
        tell("Ctrl-C at work", "", "", seconds, status, gone(self.before)[1])

    def out_of_memory(self) -> None:
        """Another process takes what is free as soon as the engine is ready, and goes when it was noticed."""
        hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert hog.stdin is not None and hog.stdout is not None
        here = hog.stdout.readline().strip() == "here"  # before the run looks at the card: its own context is paid
        run = self.run("out of memory", "--batch-tokens", str(HOG_BATCH_TOKENS))
        noticed = ready = "never"
        if not here:
            print("  the process that was to take the memory did not come up")
        elif run.wait_for("SGLang is ready", timeout_s=START_S):
            began = time.monotonic()
            print("go", file=hog.stdin, flush=True)
            print(f"  another process took {hog.stdout.readline().strip()}")
            noticed = run.seconds_until("out of memory", since=began, timeout_s=NOTICE_S)
            waited = run.seconds_until("waits for memory", since=began, timeout_s=10.0)
            print(f"  waits for memory after {waited} s")
        hog.kill()
        hog.wait()
        if noticed != "never":
            ready = run.seconds_until("SGLang is ready", since=began + float(noticed), timeout_s=START_S)
        status = run.end(RUN_S)
        seconds, left = gone(self.before)
        tell("out of memory", noticed, ready, seconds, status, left)
        self.quote(run, "memory")

    def device_assert(self) -> None:
        """An id outside the table, past our own check."""
        engine = open_engine(resolve(self.model, report=print), dim=DIM, settings=SGLangSettings(max_tokens=512))
        began, told = time.monotonic(), "an answer"
        try:
            engine.submit([np.array([5, 10_000_000, 151_643], np.uint32)]).result(NOTICE_S)
        except (EngineError, TimeoutError) as error:
            told = f"{type(error).__name__}: {error}"
        noticed = f"{time.monotonic() - began:.1f}"
        engine.close()
        seconds, left = gone(self.before)
        tell("device assert", noticed, "", seconds, "", left)
        print(f"  {told[:150]}", flush=True)

    def quote(self, run: Run, text: str) -> None:
        for line in [line for _, line in run.lines if text in line][:4]:
            print(f"  {line[:150]}", flush=True)

    def same_index(self) -> None:
        """The last run goes on to the end; then both indexes hold the same rows."""
        status = self.run("the rest").end(RUN_S)
        (ids, vectors), (other_ids, other_vectors) = (rows_of(self.folder / name) for name in ("whole", "faults"))
        same = ids == other_ids
        cosine = f"{float((vectors * other_vectors).sum(axis=1).min()):.6f}" if same else "-"
        print(f"the rest: status {status}; {len(other_ids):,} rows, the same {same}, least cosine {cosine}")
        command = [sys.executable, "-m", "embedcli", "verify", str(self.folder / "faults")]
        verified = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S)
        print(f"verify: status {verified.returncode} {verified.stdout.strip()[:200]}")


def rows_of(index: Path) -> tuple[list[tuple[str, str]], np.ndarray]:
    table = ds.dataset(index / "current/vectors").to_table(columns=["chunk_id", "chunk_digest", "vector"])
    table = table.sort_by("chunk_id")
    ids = list(zip(table["chunk_id"].to_pylist(), table["chunk_digest"].to_pylist(), strict=True))
    return ids, np.array(table["vector"].to_pylist(), np.float32)


def main(model: str, docs: str, *flags: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="card-faults-", dir=os.environ.get("OUT")))
    print(f"lines and indexes are in {folder}")
    faults = Faults(model, [docs, "--model", model, "--dim", str(DIM), *flags], folder)
    tell(*(name for name, _ in COLUMNS))
    of_the_engine = (
        faults.scheduler_killed,
        faults.stopped,
        faults.killed_while_it_starts,
        faults.device_assert,
        faults.out_of_memory,
    )
    of_cards = (faults.one_card_lost,)
    for step in (faults.whole, *(of_cards if faults.cards > 1 else of_the_engine), faults.same_index):
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the next fault is to be tried all the same
            print(f"  {step.__name__} came to nothing: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
