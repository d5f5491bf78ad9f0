#!/usr/bin/env bash
# pyarrow 26.0.1, seen 2026-11-29: a CompressedInputStream over a PythonFile closes the caller's own file as soon as the
# stream is no longer referenced, without a call of close(). gzip.GzipFile(fileobj=...) leaves the file open. A program that
# looks at the first lines of a compressed file and then seeks back to read it anew finds it closed.
# Output seen: gzip    closed: False
#              pyarrow closed: True
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1
"$place/venv/bin/python" - "$place/lines.gz" <<'PY'
import gc
import gzip
import sys

import pyarrow

with gzip.open(sys.argv[1], "wb") as sink:
    sink.write(b"one\ntwo\n" * 1000)


def first_line_by_gzip(file) -> bytes:
    return gzip.GzipFile(fileobj=file).readline()


def first_line_by_pyarrow(file) -> bytes:
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file), "gzip").read(4)


closed = {}
for name, look in (("gzip", first_line_by_gzip), ("pyarrow", first_line_by_pyarrow)):
    file = open(sys.argv[1], "rb")
    assert look(file) == b"one\n"
    gc.collect()
    closed[name] = file.closed
    print(f"{name:7} closed: {file.closed}")
assert closed == {"gzip": False, "pyarrow": True}, "the file stays open now"
PY
