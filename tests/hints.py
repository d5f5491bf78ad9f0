"""Every hint that the program can give, taken from its own text.

In: the modules of embedcli. Out: the templates, each as a pattern with `.*` for what is filled in.
Not here: the states in which they are given (test_hints.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import embedcli
from embedcli import errors

FOLDER = Path(embedcli.__file__).parent
ERRORS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
RAISED = {name for name, kind in ERRORS.items() if issubclass(kind, errors.EmbedcliError)}
GIVE_HINTS = {"way_back", "offline_hint", "_check_spelling", "hint", "storage_error", "openness", "rights_hint"}
"""Functions that return a hint, or look it up."""
NAMES = {"hint", "mend", "kept", "hints"}


@cache
def templates() -> dict[str, str]:
    """Each hint of the program as a pattern, and the module that gives it."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.rglob("*.py")):
        constants = dict(_constants(path))
        for node in _hints_in(_tree(path)):
            for pattern in _patterns(node, constants):
                found.setdefault(pattern, path.relative_to(FOLDER).as_posix())
    return found


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _constants(path: Path) -> Iterator[tuple[str, str]]:
    """The strings that a module has names for, its own and those that it imports with a name or a module."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embedcli"):
            parts = str(node.module).split(".")[1:]
            for file in (FOLDER.joinpath(*parts), *(FOLDER.joinpath(*parts, name.name) for name in node.names)):
                if file.with_suffix(".py").exists() and file.with_suffix(".py") != path:
                    yield from _own_constants(file.with_suffix(".py"))
    yield from _own_constants(path)


@cache
def _own_constants(path: Path) -> list[tuple[str, str]]:
    found = []
    for node in _tree(path).body:
        value = node.value.value if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) else None
        if isinstance(node, ast.Assign) and isinstance(value, str):
            found.append((ast.unparse(node.targets[0]), value))
    return found


def _hints_in(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            place = 1 if name in RAISED or ast.unparse(node.func) == "hints.get" else 3 if name == "Line" else None
            if place is not None and len(node.args) > place:
                yield node.args[place]
            yield from (part.value for part in node.keywords if part.arg in ("hint", "mend"))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in NAMES:
            yield node.value
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MEANINGS":
            assert isinstance(node.value, ast.Tuple)
            yield from (part.elts[-1] for part in node.value.elts if isinstance(part, ast.Tuple))
        elif isinstance(node, ast.FunctionDef) and node.name in GIVE_HINTS:
            yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value)


def _patterns(node: ast.expr, constants: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield re.escape(node.value)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node).rpartition(".")[2]
        if name in constants:
            yield re.escape(constants[name])
    elif isinstance(node, ast.JoinedStr):
        yield "".join(_part(part, constants) for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from (pattern for part in (node.body, node.orelse) for pattern in _patterns(part, constants))
    elif isinstance(node, ast.BoolOp):
        yield from (pattern for part in node.values for pattern in _patterns(part, constants))
    elif isinstance(node, ast.Tuple):
        yield from (pattern for part in node.elts[-1:] for pattern in _patterns(part, constants))
    elif isinstance(node, ast.Dict):
        yield from (pattern for part in node.values for pattern in _patterns(part, constants))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (list(_patterns(part, constants)) or [".*"] for part in (node.left, node.right))
        yield from (one + other for one in left for other in right)


def _part(node: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    inner = node.value if isinstance(node, ast.FormattedValue) else node
    name = ast.unparse(inner).rpartition(".")[2]
    return re.escape(constants[name]) if name in constants else ".*"
