"""Fixtures that many tests share."""

from __future__ import annotations

import compileall
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import embedcli
from embedcli.cli.app import app
from embedcli.config import IndexSettings
from embedcli.errors import EngineError
from embedcli.models.folder import Model
from embedcli.run.tools import Tools
from tests.fake_cards import make_machine
from tests.published import filled
from tests.s3 import S3, moto_server
from tests.workshop import Workshop, _resolve, wide_engine

# `import openvino` would send its maker a note, by a process that runs the whole of `__main__` again on Python 3.14.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers have the cores, torch's threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is converted for OpenVINO once serves every later test, and stays out of the cache of whoever runs the tests.
os.environ.setdefault("EMBEDCLI_CACHE", str(Path(__file__).resolve().parent.parent / ".pytest_cache/embedcli"))


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package and the helpers once: an environment that keeps Python from writing what it has compiled
    makes each of the hundreds of processes do it again, up to a third of a second each."""
    if not hasattr(config, "workerinput"):
        for package in (Path(embedcli.__file__).parent, Path(__file__).parent):
            compileall.compile_dir(package, quiet=2, workers=0)


WAITS = "cluster"
"""A folder whose tests wait for nine minutes, for processes that end by themselves, and compute for two."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits begins early: at the end no other test would be left that could run meanwhile. Before it those of the
    README: each worker that takes some of them, from the end of another one's list, has to run its session anew."""
    items.sort(key=lambda item: (item.path.name != "test_readme.py", item.path.parent.name != WAITS))


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """An empty corpus beside an index that does not exist yet."""
    return Workshop(tmp_path)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with an NVIDIA card, driver, torch and SGLang being fakes."""
    return make_machine(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 server in a process of its own, which the environment reaches."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return filled(Workshop(tmp_path_factory.mktemp("template")))


@pytest.fixture
def kept(template: Workshop, tmp_path: Path) -> Workshop:
    """A copy of a published index, for tests that do not touch its sources."""
    shop = Workshop(tmp_path / "kept")
    shop.docs.rmdir()
    shutil.copytree(template.index, shop.index, symlinks=True)
    shop.docs = template.docs
    return shop


@pytest.fixture
def command(shop: Workshop) -> Callable[..., Any]:
    """The program with an engine that needs no torch; `--engine broken` is one that does not start."""

    def open_engine(model: Model, settings: IndexSettings, device: str, engine: str) -> Any:
        if engine == "broken":
            raise EngineError("the double does not start")
        return wide_engine(model, settings.dim, device, shop.log)

    def make_tools(engine: str, say: Callable[[str], None], **_: object) -> Tools:
        return Tools(_resolve, lambda _: "cpu", lambda *given: open_engine(*given, engine))

    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)], obj=make_tools)
