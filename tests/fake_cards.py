"""A machine with NVIDIA cards, a torch with CUDA and SGLang, as far as the program looks at them before and after it
starts a host: for runs of the program itself where there is no card.

In: nothing. Out: the environment of such a machine; what the driver says and how SGLang behaves are variables of it
(fake_card/nvml.c, fake_card/packages/sglang). Not here: any expectation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FAKE = HERE / "fake_card"
COMPILER = shutil.which("cc")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the driver's library is made by `cc`, which is not here")


def make_machine(folder: Path) -> dict[str, str]:
    """Builds the driver's library in the folder; returns the environment in which it is found."""
    assert COMPILER is not None
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, FAKE / "nvml.c"], check=True)
    packages = os.pathsep.join(map(str, (FAKE / "packages", HERE.parent, HERE)))
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {**kept, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": packages, "HF_HUB_OFFLINE": "1"}


def embedcli(*arguments: object, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embedcli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
