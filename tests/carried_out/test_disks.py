"""The hints about disks, carried out on a disk of its own that is full, read-only or has no room for another file.

In: tmpfs, mounted where nobody else sees it; skipped where this user may not mount one.
Not here: quotas, and filesystems without links (test_storage_faults.py makes their errors).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from tests.carried_out.table import CARRIED
from tests.hint_states import HERE, nothing, places
from tests.unprivileged import skip_unless_it_mounts
from tests.workshop import Workshop

INGEST = "{program} ingest {docs} --index {disk}/index --dim 16 --max-tokens 64"
AGAIN = "{program} ingest --index {disk}/index"
SYNC = "{python} -m embedcli sync sqlite:{parent}/s.db"
READ_ONLY = (
    "the filesystem is read-only; mount it so that it can be written, or copy the index elsewhere with `cp -a` and name"
    " the copy"
)
FILL = "head -c 300M /dev/zero > {disk}/filler || true"


@dataclass(frozen=True)
class DiskRow:
    """`mount`: the options of the disk; `before`: what happens to it; `ways` as in a Row."""

    hint: str
    mount: str
    before: Sequence[str]
    command: str
    ways: Sequence[Sequence[str]]


ROWS = [
    DiskRow(
        "free some space, or put the index on another disk with `--index`",
        "size=16m",
        ["head -c 60M /dev/zero | tr '\\0' ' ' > {docs}/blank.txt"],
        INGEST,
        [
            ["mount -o remount,size=200m {disk}", INGEST],
            ["{program} ingest {docs} --index {other} --dim 16 --max-tokens 64"],
        ],
    ),
    DiskRow(
        "free some space, then run the same command again: finished documents are kept",
        "size=200m",
        [INGEST, FILL],
        f"{AGAIN} --reread",
        [["rm {disk}/filler", f"{AGAIN} --reread"]],
    ),
    DiskRow(
        READ_ONLY,
        "size=200m",
        [INGEST, "mount -o remount,ro {disk}"],
        f"{AGAIN} --reread",
        [
            ["mount -o remount,rw {disk}", f"{AGAIN} --reread"],
            ["cp -a {disk}/index {other}", "{program} ingest --index {other} --reread"],
        ],
    ),
    DiskRow(
        READ_ONLY,
        "size=200m",
        [INGEST, "mount -o remount,ro {disk}"],
        f"{SYNC} {{disk}}/index",
        [["mount -o remount,rw {disk}", f"{SYNC} {{disk}}/index"], ["cp -a {disk}/index {other}", f"{SYNC} {{other}}"]],
    ),
    DiskRow(
        "free some space (`df -i` counts files too), or put the index elsewhere with `--index`",
        "size=3g,nr_inodes=2",
        ["touch {disk}/one"],
        "{python} -m embedcli doctor {disk}/index --model minilm",
        [
            ["mount -o remount,nr_inodes=100 {disk}", "{python} -m embedcli doctor {disk}/index --model minilm"],
            ["{python} -m embedcli doctor {other} --model minilm"],
        ],
    ),
]
CARRIED.update(row.hint for row in ROWS)


@pytest.fixture
def on_disk(shop: Workshop) -> Callable[[DiskRow, Sequence[str]], str]:
    """Do all of a row in one shell, for its disk goes with it; what the command that gives the hint has printed."""
    nothing(shop)
    disk = shop.index.parent / "disk"
    disk.mkdir()
    skip_unless_it_mounts()

    def run(row: DiskRow, way: Sequence[str]) -> str:
        named = {**places(shop), "disk": f"'{disk}'"}
        lines = [line.format(**named) for line in (f"mount -t tmpfs -o {row.mount} small {{disk}}", *row.before)]
        given = f"if {row.command.format(**named)} > {{parent}}/given 2>&1; then exit 97; fi".format(**named)
        helped = [line.format(**named) for line in way]
        script = "\n".join(["set -e", "cd /", *lines, given, *helped])
        environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(shop.index.parent),
            "PYTHONPATH": str(HERE.parent),
        }
        ran = subprocess.run(
            ["unshare", "-m", "bash", "-c", script], env=environment, capture_output=True, text=True, timeout=240
        )
        said = (shop.index.parent / "given").read_text()
        assert ran.returncode == 0, said + ran.stdout + ran.stderr
        return said

    return run


CASES = [(row, way) for row in ROWS for way in row.ways]


@pytest.mark.parametrize(("row", "way"), CASES, ids=[f"{row.hint[:50]} -> {way[-1][:50]}" for row, way in CASES])
def test_a_hint_of_a_disk_is_given_in_its_state_and_helps(
    on_disk: Callable[[DiskRow, Sequence[str]], str], row: DiskRow, way: Sequence[str]
) -> None:
    assert row.hint in " ".join(on_disk(row, way).split())
