"""`--where`: a condition in DuckDB's SQL over the columns of the index, asked of one batch of rows after the other.

In: the text of the condition, then tables with the columns that it names. Out: which rows meet it. The condition is one
expression about one row: it is parsed before anything is read, and can neither read a file nor write anything.
Not here: reading the rows (shards.py), what a command does with those that meet it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedcli.columns import row_schema
from embedcli.errors import UsageError

if TYPE_CHECKING:
    import duckdb

Json = dict[str, Any]

FORBIDDEN = {"SUBQUERY": "a `select` inside it", "STAR": "a `*` inside it"}
"""Nodes of DuckDB's tree that reach beyond one row, or beyond the columns that are read."""

_SMALL = """
+ - * / // % ~~ !~~ ~~* !~~* ~~~ @ ^@ abs round floor ceil ceiling sign greatest least len length strlen lower lcase
upper ucase trim ltrim rtrim left right substring substr contains starts_with prefix ends_with suffix instr strpos
position split_part regexp_matches regexp_full_match regexp_extract like_escape not_like_escape ilike_escape
not_ilike_escape ifnull nullif list_contains array_contains list_has in now today current_date get_current_timestamp
current_timestamp date_part datepart date_trunc datetrunc date_diff datediff date_sub year month day hour minute
week quarter dayofweek isodow dayofyear epoch epoch_ms make_date strftime strptime try_strptime age to_years
to_months to_weeks to_days to_hours to_minutes to_seconds trunc isnan isfinite
"""
SMALL_FUNCTIONS = frozenset(_SMALL.split())
"""Functions and operators whose values are no larger than what they are given."""

_TYPES = """
bool boolean tinyint smallint int integer bigint hugeint int1 int2 int4 int8 float float4 float8 real double decimal
numeric varchar text string char date time timestamp timestamptz datetime interval
"""
SMALL_TYPES = frozenset(_TYPES.split())
"""Types to which a cast makes nothing much longer, as one to bits does."""

MOST_LETTERS = 1 << 18
"""Of a condition that comes from others: it takes 12 kB of memory for each comparison in it until it is parsed."""
MOST_SHOWN = 500

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",  # else a name could be a variable of this program
    "temp_directory": "",  # else a large query would write into the working directory
    "threads": "1",  # a batch is small, and its rows keep their order
}


class Where:
    """A condition that was parsed and checked against the columns. Raises UsageError (exit 2) where it is not one.

    `columns`: the columns of the index that it needs. A field of `meta` is `meta.NAME`, as text. With `limited` it may
    use SMALL_FUNCTIONS and SMALL_TYPES only: it comes from others, and DuckDB's limit of memory is not one of values.
    """

    def __init__(self, sql: str, *, dim: int, limited: bool = False) -> None:
        self._sql = sql
        if not sql.strip():
            raise self._error("it is empty: is a shell variable not set?")
        try:
            sql.encode()
        except UnicodeEncodeError:  # an argument whose bytes are not UTF-8 has half letters for them
            raise self._error("it is not UTF-8") from None
        self._connection = _connect()
        if limited and len(sql) > MOST_LETTERS:
            raise self._error(f"it has {len(sql):,} letters, {MOST_LETTERS:,} at most")
        schema = row_schema(dim)
        tree, condition = self._parsed(sql)
        if problem := next((FORBIDDEN[node["class"]] for node in _nodes(condition) if node["class"] in FORBIDDEN), ""):
            raise self._error(f"it has {problem}, and a condition is about one row")
        if limited and (large := next(filter(None, map(_large, _nodes(condition))), "")):
            raise self._error(f"it has `{large}`, which a server does not run for its clients")
        named = {name.lower() for node in _nodes(condition) for name in node.get("column_names", ())}
        self.columns = tuple(name for name in schema.names if name in named) or ("chunk_index",)  # else: how many rows?
        for node in list(_nodes(condition)):
            if (path := _meta_path(node)) is not None:
                self._make_field(node, path)
        self._expression = self._text(tree).partition(" WHERE ")[2]
        self._check(schema.empty_table())

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows meet the condition, bool [n]; one that gives null is not met. `rows` has at least `columns`.

        Raises UsageError where a value cannot be used as the condition uses it, such as text cast to a number.
        """
        found = self._ask(f"select coalesce({self._expression}, false) as met from rows", rows)
        return np.asarray(found.fetchnumpy()["met"], dtype=np.bool_)

    def _check(self, empty: pa.Table) -> None:
        """DuckDB knows the names and types, and takes neither sums nor windows here."""
        self._ask(f"select 1 from rows where {self._expression}", empty).fetchall()
        found = self._ask(f"select {self._expression} from rows", empty)
        kind = str(found.description[0][1]) if found.description else ""
        found.fetchall()
        if kind != "BOOLEAN":
            raise self._error(f"it gives {kind}, not true or false")

    def _ask(self, query: str, rows: pa.Table) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            self._connection.register("rows", rows)
            return self._connection.execute(query)
        except duckdb.Error as error:
            raise self._error(_one_line(str(error))) from error

    def _parsed(self, sql: str) -> tuple[Json, Json]:
        """The tree of a SELECT with this condition, and the condition in it; all else is as with any other one."""
        tree, plain = (self._tree(f"select 1 from rows where (\n{text}\n)") for text in (sql, "true"))
        node = tree["statements"][0]["node"]
        if {**node, "where_clause": None} != {**plain["statements"][0]["node"], "where_clause": None}:
            raise self._error("it is more than a condition")
        self._tree(f"select 1 from rows where\n{sql}\n")  # without our parentheses, which it may not close itself
        return tree, node["where_clause"]

    def _tree(self, query: str) -> Json:
        """DuckDB's own parse of one SELECT."""
        ((text,),) = self._connection.execute("select json_serialize_sql($1::varchar)", [query]).fetchall()
        tree: Json = json.loads(text)
        if tree["error"]:
            raise self._error(tree["error_message"])
        return tree

    def _text(self, tree: Json) -> str:
        query = "select json_deserialize_sql($1::json)"
        ((text,),) = self._connection.execute(query, [json.dumps(tree)]).fetchall()
        return str(text)

    def _make_field(self, node: Json, path: list[str]) -> None:
        """Replace `meta.a.b` by what extracts its text: DuckDB's own dots would give JSON, with quotes around it."""
        pointer = "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in path).replace("'", "''")
        tree = self._tree(f"select json_extract_string(meta, '{pointer}')")
        node.clear()
        node.update(tree["statements"][0]["node"]["select_list"][0])

    def _error(self, problem: str) -> UsageError:
        shown = self._sql.encode(errors="backslashreplace").decode()
        shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."
        return UsageError(
            f"`--where` cannot be used: {problem}: `{shown}`",
            "write a condition of DuckDB's SQL over the columns in the README, such as"
            " \"path like 'contracts/%' and meta.author = 'Lee'\"",
        )


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:", config=CONFIG)
    connection.execute("set timezone = 'UTC'").fetchall()  # a time without a zone means the same on every machine
    connection.execute("set lock_configuration = true").fetchall()
    return connection


def _nodes(tree: Any) -> Iterator[Json]:
    """Every expression in a tree of DuckDB, the outermost first."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)


def _large(node: Json) -> str:
    """The name of a function or type in this node that may make values larger than what it is given; else nothing."""
    if node["class"] == "FUNCTION":
        name, small = str(node.get("function_name")).lower(), SMALL_FUNCTIONS
    elif node["class"] == "CAST":
        name, small = str((node.get("type_expr") or {}).get("type_name")).lower(), SMALL_TYPES
    else:
        return ""
    return "" if name in small else name


def _meta_path(node: Json) -> list[str] | None:
    names: list[str] = node.get("column_names", [])
    return names[1:] if len(names) > 1 and names[0].lower() == "meta" else None


def _one_line(message: str) -> str:
    """DuckDB's message without its kind and its drawing of the place."""
    text = " ".join(message.partition("\n\nLINE ")[0].split())
    return text.partition("Error: ")[2] or text
