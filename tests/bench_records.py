"""What records cost: read and parsed, sifted against what is known, and as documents: a table, no test.

In: how many records of about 500 bytes (default: 1,000,000). Out: lines on stdout: MB/s of processor time (MB of the
records as JSON, whatever the format), and the memory of the process, for all records and for a tenth of them. The last
lines are of whole runs with a fake engine, for all records and for a fifth of them: the first one; an unchanged night;
one in which nothing but the file's time has changed; one in which 1 % of the records have; one that reads all of them
again. A table says how much memory each stage of them took in this process, and its children, what that is a record,
and what it would be for ten million.
Run: `PYTHONPATH=. python tests/bench_records.py [RECORDS]`, the whole runs alone with `... whole_runs RECORDS`.

Seen with 10,000,000 records (4.6 GB), without mapped files: the first run 621 CPU s of its own, 1,864 of its children,
662 MB in all processes, of which 280 MB while it reads and embeds and 580 MB at most in the publish; an unchanged night
21 s and 392 MB; one in which only the file's time has changed 18 s and 393 MB; 8.9 GB on the disk.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.reading.containers.known import KnownFiles
from embedcli.reading.splitter import Split, SplittingWork, Whole
from embedcli.records import RecordRule, Source, stat_of
from embedcli.sources.containers import Asked

RECORDS = 1_000_000
BATCH = 100_000
MANY = 10_000_000
"""For so many the table says how much memory there would be, if it grew on as it did."""
WORDS = [f"word{n * 7919 % 9973}" for n in range(9_973)]


def records(first: int, count: int) -> Iterator[dict[str, object]]:
    for number in range(first, first + count):
        text = " ".join(WORDS[(number * 31 + n * 17) % len(WORDS)] for n in range(42))
        yield {"id": number, "title": f"Ticket {number}", "text": text, "status": "open", "team": "hub", "priority": 3}


def make(path: Path, count: int) -> None:
    writer: pq.ParquetWriter | None = None
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "title", "text", "status", "team", "priority"])
        if path.suffix == ".csv":
            table.writeheader()
        for first in range(0, count, BATCH):
            batch = list(records(first, min(BATCH, count - first)))
            if path.suffix == ".csv":
                table.writerows(batch)
            elif path.suffix == ".parquet":
                rows = pa.Table.from_pylist(batch)
                writer = writer or pq.ParquetWriter(path, rows.schema)
                writer.write_table(rows)
            else:
                file.write("".join(orjson.dumps(row).decode() + "\n" for row in batch))
    if writer is not None:
        writer.close()


def split(path: Path, folder: Path, known: KnownFiles | None) -> tuple[list[tuple[str, str]], Whole]:
    """Split a container as its process does; returns ids and digests of what came out."""
    work = SplittingWork(folder)
    request: Split | None = Split(
        Source("root", path.name, str(path), stat_of(path.stat())), Asked(RecordRule(), True), known
    )
    came: list[tuple[str, str]] = []
    while True:
        answer = work(request, lambda _: None, with_forms=True)
        if isinstance(answer, Whole):
            return came, answer
        assert answer is not None
        if os.environ.get("KEEP"):
            came += [(record.id, record.digest) for record in answer]
        request = None


def status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def measure(path: Path, folder: Path, known: KnownFiles | None) -> None:
    """In a process of its own: one line of JSON."""
    before = status_mb("VmHWM")
    start = time.process_time()
    _, whole = split(path, folder, known)
    print(json.dumps({"s": time.process_time() - start, "mb": status_mb("VmHWM") - before, "left": len(whole.left)}))


def measured(path: Path, folder: Path, known: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "measure", str(path), str(folder), "known" if known else ""]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


STAGES = {
    ("embedcli/run/known.py", "look"): "look",
    ("embedcli/run/looking/survey.py", "make_plan"): "plan",
    ("embedcli/run/begin_work.py", "begin"): "begin",
    ("embedcli/run/stream.py", "passes"): "read and embed",
    ("embedcli/run/checkpoints.py", "__exit__"): "read and embed",
    ("embedcli/index/outcomes.py", "rows"): "publish: sort",
    ("embedcli/index/next_table.py", "edit"): "publish: compare",
    ("embedcli/index/publish.py", "publish"): "publish: write",
    ("embedcli/search/complete.py", "complete"): "cache of searches",
    ("embedcli/run/summary.py", "summarise"): "summary",
    ("embedcli/run/summary.py", "finish_unchanged"): "summary",
}
"""What a run does while one of these functions is on its stack; the innermost counts."""
PARENT = "other"
CHILDREN = {"embedcli.search.complete": "largest cache builder", "embedcli.reading.process": "largest reader"}
TOGETHER = "all processes"


class MostMemory:
    """Looks, in a thread of its own, how much memory this process has in each stage, and each kind of its children:
    only what is theirs alone, and with the pages that they have mapped from files, which the system takes back when it
    needs them."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self.most_mb: dict[str, tuple[float, float]] = {}
        """The most so far: of this process by stage, of the largest child by kind, of all TOGETHER."""
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MostMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            together = [memory_mb(os.getpid())]
            self._note(stage_of(self._main), together[0])
            for pid in children():
                with suppress(OSError, KeyError):  # it has ended, or has not begun
                    together.append(memory_mb(pid))
                    self._note(kind_of(pid), together[-1])
            self._note(TOGETHER, (sum(own for own, _ in together), sum(all_mb for _, all_mb in together)))

    def _note(self, name: str, found_mb: tuple[float, float]) -> None:
        own, all_mb = self.most_mb.get(name, (0.0, 0.0))
        self.most_mb[name] = (max(own, found_mb[0]), max(all_mb, found_mb[1]))


def memory_mb(pid: int) -> tuple[float, float]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    own, all_mb = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "VmRSS"))
    return own, all_mb


def stage_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        for (file, function), stage in STAGES.items():
            if frame.f_code.co_name == function and frame.f_code.co_filename.endswith(file):
                return stage
        frame = frame.f_back
    return PARENT


def children() -> list[int]:
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += [int(pid) for pid in path.read_text().split()]
    return found


def kind_of(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    return next((kind for module, kind in CHILDREN.items() if module in command), "largest other process")


RUNS = ("first", "unchanged", "touched", "1 % changed", "all read again")


def whole(folder: Path, what: str) -> None:
    """One run in a process of its own, over the records in a folder: a line of JSON."""
    from tests.fake_engines import EngineOfDigests
    from tests.workshop import Workshop

    shop = Workshop(folder, reading_processes=True)
    flags: dict[str, Any] = {
        "open_engine": lambda model, settings, device: EngineOfDigests(dim=settings.dim, batch_tokens=1 << 15),
        "checkpoint_bytes": 8 << 20,  # what waits for a checkpoint is not what grows, and few records reach this
    }
    more = {"max_tokens": 256} if what == "first" else {"reread": True} if what == "all read again" else {}
    with MostMemory() as memory:
        start, cpu_s, before = time.monotonic(), time.process_time(), os.times()
        summary = shop.ingest(**flags, **more)
        after = os.times()
        found = {
            "what": what, "s": time.monotonic() - start, "cpu_s": time.process_time() - cpu_s,
            "children_s": after.children_user - before.children_user, "mb": memory.most_mb,
            "changed": summary.sources["changed"], "publishing_s": summary.seconds.get("publishing", 0.0),
        }  # fmt: skip
    print(json.dumps(found | {"disk_mb": disk_mb(folder)}), flush=True)


def runs_of(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """The runs over so many records, one after another."""
    file = folder / "docs" / "a.jsonl"
    file.parent.mkdir()
    make(file, count)
    for what in RUNS:
        if what == "1 % changed":
            change(file)
        age_s = {"unchanged": 0.0, "touched": -1e6}.get(what, 100.0)
        then = file.stat().st_mtime_ns - int(age_s * 1e9)
        os.utime(file, ns=(then, then))
        command = [sys.executable, __file__, "whole", str(folder), what]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        yield found


def disk_mb(folder: Path) -> float:
    """What the records and the index take."""
    inodes = {(found.st_dev, found.st_ino): found.st_blocks * 512 for found in map(Path.stat, folder.rglob("*"))}
    return sum(inodes.values()) / 1e6


def change(file: Path) -> None:
    """Change the text of every hundredth record."""
    changed = file.with_suffix(".new")
    with file.open("rb") as old, changed.open("wb") as new:
        for number, line in enumerate(old):
            new.write(line.replace(b'"text":"', b'"text":"changed ') if number % 100 == 0 else line)
    changed.replace(file)


def whole_runs(count: int) -> None:
    """Runs over so many records and a fifth of them, so that what grows is told from what does not."""
    few = count // 5
    found = []
    for part in (few, count):
        with tempfile.TemporaryDirectory() as name:
            found.append(list(runs_of(Path(name), part)))
    for _, large in zip(*found, strict=True):
        print(
            f"whole run, {large['what']}: {count:,} records, {large['s']:.0f} s,"
            f" {count / large['cpu_s']:,.0f} records a CPU second of ours, {large['children_s']:.0f} CPU s of children,"
            f" {large['disk_mb']:.0f} MB on the disk",
            flush=True,
        )
    print(
        f"{'run':15} {'stage':22} {few:>11,} {count:>11,} records   bytes a record   at {MANY:,}   mapped files with it"
    )
    for small, large in zip(*found, strict=True):
        for stage, (own, all_mb) in large["mb"].items():
            before, all_before = small["mb"].get(stage, (own, all_mb))
            grown, all_grown = (own - before) / (count - few), (all_mb - all_before) / (count - few)
            then, all_then = own + grown * (MANY - count), all_mb + all_grown * (MANY - count)
            print(
                f"{large['what']:15} {stage:22} {before:8.0f} MB {own:8.0f} MB {grown * 1e6:22.0f}"
                f" {then:13.0f} MB {all_mb:11.0f} MB {all_then:6.0f} MB"
            )


def main(count: int) -> None:
    record_mb = len(b"".join(orjson.dumps(one) + b"\n" for one in records(0, 1_000))) / 1e9
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".jsonl", ".csv", ".parquet", ".jsonl.zst"):
            lines = []
            for part in (count // 10, count):
                path = folder / f"a{suffix.removesuffix('.zst')}"
                make(path, part)
                if suffix.endswith(".zst"):
                    plain, path = path, folder / f"a{suffix}"
                    with plain.open("rb") as source, pa.output_stream(str(path), compression="zstd") as packed:
                        shutil.copyfileobj(source, packed)
                    plain.unlink()
                found = measured(path, folder, False)
                lines.append(f"{part:,} records: {part * record_mb / found['s']:.0f} MB/s, {found['mb']:.0f} MB")
            print(f"{suffix:11} all new: {'; '.join(lines)}")
        make(folder / "a.jsonl", count)
        os.environ["KEEP"] = "1"
        came, _ = split(folder / "a.jsonl", folder, None)
        del os.environ["KEEP"]
        KnownFiles.write(folder, "known", [([one for one, _ in came], [found for _, found in came])], count=len(came))
        found = measured(folder / "a.jsonl", folder, True)
        print(f".jsonl      all known: {count * record_mb / found['s']:.0f} MB/s, {found['mb']:.0f} MB")
    whole_runs(count)


if __name__ == "__main__":
    if sys.argv[1:2] == ["whole"]:
        whole(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["whole_runs"]:
        whole_runs(int(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        place = Path(sys.argv[3])
        files = KnownFiles(place / "known-keys.npy", place / "known-digests.npy") if sys.argv[4] else None
        measure(Path(sys.argv[2]), place, files)
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS)
