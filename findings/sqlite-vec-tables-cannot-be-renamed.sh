#!/usr/bin/env bash
# sqlite-vec 0.1.9 under apsw, seen 2026-11-29: `alter table v rename to w` of a vec0 table fails, although SQLite renames
# other virtual tables, such as those of its own fts5, together with their shadow tables. Whoever loads a new table beside the
# old one cannot swap the two by renaming: the table has to be copied, or a plain table of ids has to be joined to it.
# Output seen: fts5 renamed, 1 row
#              vec0 Error preparing rowid scan: no such table: main.w_rowids
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check sqlite-vec==0.1.9 apsw==3.54.1.0
"$place/venv/bin/python" - <<'PY'
import struct

import apsw
import sqlite_vec

database = apsw.Connection(":memory:")
database.enable_load_extension(True)
database.load_extension(sqlite_vec.loadable_path())
database.execute("create virtual table t using fts5(text)")
database.execute("insert into t values ('a word')")
database.execute("alter table t rename to u")
rows = database.execute("select count(*) from u").fetchall()[0][0]
print(f"fts5 renamed, {rows} row")
database.execute("create virtual table v using vec0(vector float[4])")
database.execute("insert into v(rowid, vector) values (1, ?)", [struct.pack("4f", 1, 0, 0, 0)])
try:
    database.execute("alter table v rename to w")
    rows = database.execute("select count(*) from w").fetchall()[0][0]
    said = f"renamed, {rows} row"
except apsw.Error as error:
    said = str(error)
print(f"vec0 {said}")
assert rows == 1 and "no such table" in said, "a vec0 table can be renamed now"
PY
