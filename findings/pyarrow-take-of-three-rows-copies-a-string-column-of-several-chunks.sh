#!/usr/bin/env bash
# pyarrow 26.0.1, seen 2026-11-29: Table.take() of three rows copies a column of strings whole where the column has more
# than one chunk, as every table has that is read from several files or row groups: 201.6 MB are allocated for a result of
# 1.7 kB. Where the same column is one chunk, 1.7 kB are. A loop that takes a few rows a batch is quadratic, in memory
# traffic and in time. (apache/arrow issue 39565 asks for the kernel that is missing.)
# Output seen: one chunk     takes      1,728 bytes more than the table's 201,600,000
#              eight chunks  takes 201,601,792 bytes more than the table's 201,600,000
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1
"$place/venv/bin/python" - <<'PY'
import pyarrow as pa

pool = pa.system_memory_pool()
pa.set_memory_pool(pool)
chunk = pa.array(["x" * 500] * 50_000)
taken = {}
for name, chunks in (("one chunk", [pa.concat_arrays([chunk] * 8)]), ("eight chunks", [chunk] * 8)):
    table = pa.table({"text": pa.chunked_array(chunks)})
    before = pool.bytes_allocated()
    assert name != "one chunk" or pool.max_memory() == before, "what was the most before would hide what take allocates"
    three = table.take([1, 2, 3])
    assert three.num_rows == 3
    taken[name] = pool.max_memory() - before
    print(f"{name:12}  takes {taken[name]:11,} bytes more than the table's {table.nbytes:,}")
assert taken["one chunk"] < 10_000
assert taken["eight chunks"] > 200_000_000, "only what was asked for is copied now"
PY
