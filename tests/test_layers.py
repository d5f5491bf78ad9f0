"""The map of the code, kept by a machine: imports go downwards, heavy packages have one door, starting is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import embedcli
from tests.workshop import Workshop, words

FOLDER = Path(embedcli.__file__).parent
LAYERS = [
    "errors records",
    "config report disk memory",
    "filters sources text pdf readers tokens chunker child model_files hub model_folder models shards lock engine card",
    "documents library state staging outcomes tasks scopes plan merging changes publishing manifest generations",
    "workers reading recovery doubts",
    "sglang_settings engine_guard engine_scheduler engine_host engine_process",
    "engine_cards engine_torch engine_sglang feeding assembly",
    "adoption closing healing judging storing",
    "ingest embedding verifying standing keeper doctor",
    "bench bench_reference",
    "flags keeper_cli machine_cli",
    "cli",
    "__main__",
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
DOORS = {
    "torch": {"engine_torch", "engine_host"},
    "transformers": {"engine_torch"},
    "sglang": {"engine_host", "engine_scheduler"},
    "pypdfium2": {"pdf"},
    "pypdf": {"pdf"},
    "tokenizers": {"tokens"},
    "typer": {"cli", "flags", "keeper_cli", "machine_cli"},
    "rich": {"report"},
}
HEAVY = {"torch", "transformers", "pyarrow", "sglang", "numpy", "tokenizers", "pypdfium2", "huggingface_hub"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it: own ones as `embedcli.x`, others by their top package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "embedcli":
            found |= {f"embedcli.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name if name.startswith("embedcli.") else name.split(".")[0] for name in found}


def test_every_module_has_its_layer_and_imports_only_downwards_or_beside() -> None:
    for path in FOLDER.glob("*.py"):
        if path.stem == "__init__":
            continue
        assert path.stem in LEVEL, f"{path.stem} has no layer"
        for name in imports(path):
            below = name.removeprefix("embedcli.")
            if name.startswith("embedcli.") and below in LEVEL:
                assert LEVEL[below] <= LEVEL[path.stem], f"{path.stem} imports {below}"


def test_heavy_packages_have_one_door() -> None:
    for path in FOLDER.glob("*.py"):
        for package in imports(path) & DOORS.keys():
            assert path.stem in DOORS[package], f"{path.stem} imports {package}"


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, embedcli.cli; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)


def test_an_unchanged_night_loads_neither_torch_nor_a_tokenizer(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    command = [sys.executable, "-X", "importtime", "-m", "embedcli", "ingest", "--index", str(shop.index)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in ran.stderr.splitlines() if "|" in line}
    assert "1 unchanged, nothing to do" in ran.stderr and "pyarrow" in loaded
    assert not {"torch", "transformers", "tokenizers", "sglang", "pypdfium2", "huggingface_hub"} & loaded


def test_no_function_is_over_eighty_lines() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 80, f"{path.stem}.{node.name}"
