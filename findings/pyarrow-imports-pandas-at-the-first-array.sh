#!/usr/bin/env bash
# pyarrow 26.0.1 beside pandas 3.1.1, seen 2026-11-30: `import pyarrow` does not import pandas, but the first `pa.array` of a
# process does, though it is given a list or an array of numpy and no object of pandas is in sight: 0.3 CPU seconds, in every
# process that makes an array. pyarrow looks once: where it does not find pandas then, it goes on without, and `to_pandas`
# still finds it later.
# Output seen: imported: False; after a list: True
#              hidden once: False; after a list: False; after to_pandas: True
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import sys

import pyarrow as pa

seen = ["pandas" in sys.modules]
pa.array([1, 2])
seen.append("pandas" in sys.modules)
print(f"imported: {seen[0]}; after a list: {seen[1]}")
assert seen == [False, True], "a list does not bring pandas in any more"
PY
"$place/venv/bin/python" - <<'PY'
import sys

import pyarrow as pa


class Hidden:
    def find_spec(self, name, *_):
        if name == "pandas":
            raise ModuleNotFoundError(name)


hidden = Hidden()
sys.meta_path.insert(0, hidden)
pa.array([1])
sys.meta_path.remove(hidden)
seen = ["pandas" in sys.modules]
pa.array([1, 2])
seen.append("pandas" in sys.modules)
pa.table({"a": [1]}).to_pandas()
seen.append("pandas" in sys.modules)
print(f"hidden once: {seen[0]}; after a list: {seen[1]}; after to_pandas: {seen[2]}")
assert seen == [False, False, True], "pyarrow looks for pandas again"
PY
