"""What is written through a map of a file, on a disk that has no room for it: an error, not the death of the process;
and temporary files, where no disk has room for one.

In: tmpfs, mounted where nobody else sees it; skipped where this user may not mount one.
Not here: files that are written as such (test_storage_faults.py), the hints about disks (carried_out/test_disks.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unprivileged import skip_unless_it_mounts

HERE = Path(__file__).resolve().parent.parent

WRITERS = {
    "the known records of a container": """
        from embedcli.reading.containers.known import KnownFiles
        known = [([str(number) for number in range(200_000)], [None] * 200_000)]
        KnownFiles.write(disk, "records", known, count=200_000)
    """,
    "the vectors of a long document": """
        from embedcli.run import pending
        pending.IN_MEMORY_BYTES = 0
        pending.PendingDocuments(None, None, dim=64, spool_folder=disk)._room(10_000)[:] = 1.0
    """,
}
PROGRAM = """
import sys, textwrap
from pathlib import Path
from embedcli.errors import StorageError
disk = Path(sys.argv[1])
try:
    exec(textwrap.dedent(sys.argv[2]))
except StorageError as error:
    print(f"{error}\\n{error.hint}")
    raise SystemExit(error.exit_code)
"""


def on_a_disk(folder: Path, size: str, writer: str) -> subprocess.CompletedProcess[str]:
    skip_unless_it_mounts()
    script = 'mount -t tmpfs -o "size=$1" small "$2" && shift && exec "$0" -c "$PROGRAM" "$@"'
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", script, sys.executable, size, str(folder), WRITERS[writer]],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(HERE), "PROGRAM": PROGRAM},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_said_where_a_file_is_written_through_a_map(tmp_path: Path, writer: str) -> None:
    ran = on_a_disk(tmp_path, "1m", writer)
    assert (ran.returncode, ran.stderr) == (14, "")
    assert f"cannot write `{tmp_path}`: No space left on device\nfree some space" in ran.stdout
    assert on_a_disk(tmp_path, "100m", writer).returncode == 0


WITHOUT_TEMPORARY_FILES = {
    "the last words of a reading process": """
        from embedcli.reading.pool import Limits, Pool
        with Pool(None, processes=1, limits=Limits()) as pool:
            pool.feed(iter([1]))
            pool.get(60.0)
    """,
    "the vectors of `embed --format npy`": """
        import io
        import pyarrow as pa
        from embedcli.pipes.output import Npy
        Npy(io.BytesIO(), pa.schema([("vector", pa.list_(pa.float32(), 2))]))
    """,
}


@pytest.mark.parametrize("writer", WITHOUT_TEMPORARY_FILES)
def test_disks_without_room_for_a_temporary_file_are_no_bug(tmp_path: Path, writer: str) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n{PROGRAM}"
    ran = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path), WITHOUT_TEMPORARY_FILES[writer]],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE)}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (14, "")
    assert "No usable temporary directory" in ran.stdout and "check the disk" in ran.stdout
