"""The map of the code, kept by a machine: imports go downwards only, heavy packages have one door, a start is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import embedcli
from tests.workshop import Workshop, words

FOLDER = Path(embedcli.__file__).parent
REPOSITORY = FOLDER.parent
FOLDERS = {path.parent for room in ("embedcli", "tests") for path in (REPOSITORY / room).rglob("*.py")}
FOLDERS |= {folder.parent for folder in FOLDERS}
RANKS = [
    {"__main__"},
    {"cli"},
    {"verbs"},
    {"serving"},
    {"ingest"},
    {"cluster"},
    {"run", "pipes"},
    {"search"},
    {"reading", "engines", "stores"},
    {"sources", "models", "index"},
    {"report", "config", "fingerprints", "processes", "filelist", "cores"},
    {"vault"},
    {"columns", "arrow", "records", "errors", "urls", "fields", "paths", "rights", "standard_input"},
]
"""From top to bottom: a room imports rooms of lower ranks only. Rooms of one rank that are folders never import each
other; files of one rank may, as long as there is no circle."""
RANK = {room: number for number, rooms in enumerate(reversed(RANKS)) for room in rooms}
DOORS = {
    "torch": {
        "engines.torch_engine",
        "engines.openvino.convert",
        "engines.sglang.host",
        "engines.sglang.forward",
        "engines.sglang.kernels",
        "engines.sglang.models.qwen3",
    },
    "triton": {"engines.sglang.kernels"},
    "transformers": {"engines.torch_engine", "engines.openvino.convert"},
    "openvino": {"engines.openvino.runtime", "engines.openvino.convert"},
    "sglang": {"engines.sglang.host", "engines.sglang.scheduler", "engines.sglang.models.qwen3"},
    "sgl_kernel": {"engines.sglang.models.qwen3"},
    "pypdfium2": {
        "reading.pdf.document",
        "reading.pdf.glyphs",
        "reading.pdf.judge",
        "reading.pdf.page",
        "reading.pdf.text",
        "reading.pdf.values",
    },
    "pypdf": {"reading.pdf.overlay", "reading.pdf.second"},
    "python_calamine": {"reading.office.sheets"},
    "selectolax": {"reading.office.html"},
    "zipfile": {"reading.office.package"},
    "tokenizers": {"models.tokenizer"},
    "orjson": {"pipes.output", "pipes.tables", "pipes.texts", "reading.containers.fields", "reading.containers.lines"}
    | {"serving.answers", "serving.limits"},
    "rich": {"report", "cli.texts.search"},
    "simsimd": {"search.scan"},
    "pynvml": {"engines.nvml"},
    "ray": {"cluster.ray_transport"},
    "duckdb": {"index.where"},
    "prometheus_client": {"cli.texts.metrics", "serving.metrics"},
    "starlette": {
        *("serving.answers", "serving.app", "serving.clients", "serving.guard", "serving.index_routes"),
        *("serving.limits", "serving.server"),
    },
    "uvicorn": {"serving.server"},
    "mcp": {"serving.mcp"},
    "mcp_types": {"serving.mcp"},
    "psycopg": {"stores.pgvector"},
    "pgvector": {"stores.pgvector"},
    "qdrant_client": {"stores.qdrant"},
    "pymilvus": {"stores.milvus"},
    "milvus_lite": {"stores.milvus"},
    "chromadb": {"stores.chroma"},
    "httpx": {"stores.chroma"},
    "lancedb": {"stores.lancedb"},
    "elasticsearch": {"stores.elastic"},
    "elastic_transport": {"stores.elastic"},
    "opensearchpy": {"stores.elastic"},
    "apsw": {"stores.sqlite_vec"},
    "obstore": {"sources.buckets.gs", "vault.buckets", "vault.objects"},
    "sqlite_vec": {"stores.sqlite_vec"},
}
GUARD_LOADS = {
    "embedcli.engines",
    "embedcli.engines.sglang",
    "embedcli.engines.sglang.guard",
    "embedcli.engines.sglang.wire",
    "embedcli.processes",
}
HEAVY = {
    *("torch", "transformers", "openvino", "pyarrow", "sglang", "numpy", "tokenizers", "huggingface_hub"),
    *("pypdfium2", "python_calamine", "selectolax", "pynvml", "duckdb", "orjson", "prometheus_client", "simsimd"),
    *("starlette", "uvicorn", "anyio", "mcp", "obstore", "ray"),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module by its dotted name below the package; a folder's own is the folder's name."""
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name or "__init__", path


MODULES = dict(modules())


@cache
def imports(path: Path) -> frozenset[str]:
    """What a file imports, wherever in it: own modules as `embedcli.x.y`, others by their top package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "embedcli":
            base = node.module.removeprefix("embedcli").removeprefix(".")
            for alias in node.names:
                below = f"{base}.{alias.name}".lstrip(".")
                found.add(f"embedcli.{below if below in MODULES else base}".rstrip("."))
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return frozenset(found)


def own_imports(path: Path) -> set[str]:
    return {name.removeprefix("embedcli.") for name in imports(path) if name.startswith("embedcli.")}


def test_imports_go_downwards_only() -> None:
    for module, path in MODULES.items():
        room = module.split(".")[0]
        if room == "__init__":
            continue
        assert room in RANK, f"{module} has no rank"
        for name in own_imports(path):
            other = name.split(".")[0]
            if other == room:
                continue
            files = f"{room}.py" in {p.name for p in FOLDER.glob("*.py")} and RANK[other] == RANK[room]
            assert RANK[other] < RANK[room] or files, f"{module} imports {name}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: own_imports(path) & MODULES.keys() for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join([*way, module])}"
        if module not in done:
            for name in graph[module]:
                visit(name, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_heavy_packages_have_one_door() -> None:
    for module, path in MODULES.items():
        for package in imports(path) & DOORS.keys():
            assert module in DOORS[package], f"{module} imports {package}"
        assert "typer" not in imports(path) or module.startswith("cli."), f"{module} imports typer"


def test_a_folder_says_what_is_in_it_and_imports_nothing() -> None:
    for module, path in MODULES.items():
        if path.name == "__init__.py" and module != "__init__":
            tree = ast.parse(path.read_text())
            assert len(tree.body) == 1 and len(ast.get_docstring(tree) or "") > 60, module


MOST_IMPORTS = 14


def test_no_module_imports_more_than_fourteen_others_of_the_package() -> None:
    """Who reads a module holds the names of every module that it imports, be it in a function or for annotations only.
    With more of them it does two things."""
    counts = {module: len(own_imports(path)) for module, path in MODULES.items()}
    assert {module: count for module, count in counts.items() if count > MOST_IMPORTS} == {}


NAMED = re.compile(r"(?<![\w./])([\w/]+\.py)\b")


@pytest.mark.parametrize("folder", ["embedcli", "tests"])
def test_every_file_that_a_docstring_names_exists(folder: str) -> None:
    for path in sorted((REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for name in NAMED.findall(ast.get_docstring(node) or ""):
                places = [path.parent, REPOSITORY, *FOLDERS]
                assert any((place / name).exists() for place in places), f"{path.relative_to(REPOSITORY)}: {name}"


def test_help_loads_nothing_heavy() -> None:
    """Not even when every command is loaded."""
    code = "import sys, typer.main, embedcli.cli.main as program; dict(typer.main.get_command(program.app).commands);"
    code += " print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)


def test_the_guard_of_the_engine_host_forks_before_there_is_a_second_thread() -> None:
    """A fork copies one thread: what another one had locked would stay locked in the host for ever."""
    code = "import os, sys, embedcli.engines.sglang.guard; print(len(os.listdir('/proc/self/task')), *sys.modules)"
    threads, *loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert threads == "1"
    assert {name for name in loaded if name.startswith("embedcli.")} == GUARD_LOADS
    assert not HEAVY & set(loaded)


def test_an_unchanged_night_loads_neither_torch_nor_a_tokenizer(shop: Workshop) -> None:
    shop.write("a.txt", words(30))
    shop.ingest()
    command = [sys.executable, "-X", "importtime", "-m", "embedcli", "ingest", "--index", str(shop.index)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in ran.stderr.splitlines() if "|" in line}
    assert "1 unchanged, nothing to do" in ran.stderr and "pyarrow" in loaded
    assert not {"torch", "transformers", "tokenizers", "sglang", "pypdfium2", "huggingface_hub"} & loaded


LARGE = {
    "report.Summary": "the JSON object that a run prints: one attribute a key",
    "run.plan.Plan": "what a run is to do, as one record, which the stage that looks fills in",
    "reading.office.docx._Body": "where a parser of events stands in a document",
    "reading.office.odf._Body": "where a parser of events stands in a document",
    "reading.office.rtf._Reader": "where a parser of control words stands in a document",
}
"""Classes of more than twelve attributes, and why they have so many."""


def attributes(node: ast.ClassDef) -> set[str]:
    """Those assigned on self in any method, and a dataclass's fields; none of a frozen dataclass, which is a record."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    if any("dataclass" in decorator and "frozen=True" in decorator for decorator in decorators):
        return set()
    found = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self"
    }
    if any("dataclass" in decorator for decorator in decorators):
        found |= {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
    return found


def test_no_folder_has_more_than_twenty_files() -> None:
    """A room in which the next reader finds what is looked for."""
    sizes = Counter(path.parent for path in MODULES.values())
    assert not {str(folder): count for folder, count in sizes.items() if count > 20}


def test_no_class_has_more_than_twelve_attributes() -> None:
    """What belongs together has an owner of its own, with a name."""
    large = {
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and len(attributes(node)) > 12
    }
    assert large == LARGE.keys()


def test_no_call_has_more_than_six_positional_arguments() -> None:
    """Nobody can tell the seventh from the eighth: they have names, or are a record. C and Triton know no names."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and len(node.args) > 6:
                called = ast.unparse(node.func)
                nameless = module == "engines.sglang.kernels" or called.startswith("pdfium_c.")
                assert nameless, f"{module}:{node.lineno}: {called}"


def test_no_function_is_over_eighty_lines() -> None:
    """A command's signature is its table of flags, a line each, and does not count."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                assert node.end_lineno - node.body[0].lineno < 80, f"{module}.{node.name}"


def test_whether_something_is_there_is_asked_in_one_place() -> None:
    """The methods of Path say False for what may not be looked at, from Python 3.14 on. A walk's entries do not."""
    methods = {"exists", "is_file", "is_dir", "is_symlink"}
    others = {"sources.walk", "cli.commands"}  # os.DirEntry; a file of the package itself
    asked = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods
        if not node.args and all(keyword.arg == "follow_symlinks" for keyword in node.keywords)
    }
    assert asked == others


def test_what_the_index_holds_is_listed_in_one_place() -> None:
    """Path.glob says that there is nothing in a folder that may not be listed."""
    rooms = ("index", "run", "cluster", "vault", "verbs", "search")
    assert not [
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if name.startswith(rooms) and isinstance(node, ast.Attribute) and node.attr in ("glob", "rglob")
    ]
