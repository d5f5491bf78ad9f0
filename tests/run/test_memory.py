"""What is freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import ctypes
from embedcli.run.memory import map_large_buffers

class Info(ctypes.Structure):
    _fields_ = [(f"field_{number}", ctypes.c_size_t) for number in range(10)]

def mapped():
    return libc.mallinfo2().field_3

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if {called}:
    map_large_buffers()
libc.free(libc.malloc(8 << 20))
before = mapped()
held = libc.malloc(1 << 20)
print(mapped() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(("called", "mapped"), [(False, 0), (True, 1)])
def test_a_large_buffer_has_its_own_pages_also_after_a_larger_one_was_freed(called: bool, mapped: int) -> None:
    ran = subprocess.run([sys.executable, "-c", COUNT.replace("{called}", str(called))], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == (str(mapped), "")


FREED = """
import ctypes
from pathlib import Path
from embedcli.run.memory import give_back

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = [libc.malloc(10_000) for _ in range(6_000)]
for block in blocks:
    libc.memset(block, 1, 10_000)
before = resident_bytes()
for block in blocks[:-1]:
    libc.free(block)
give_back()
print(before - resident_bytes() > 50_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_pages_below_a_small_object_in_use_are_given_back() -> None:
    ran = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("True", "")
