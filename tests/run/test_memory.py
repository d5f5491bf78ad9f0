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
