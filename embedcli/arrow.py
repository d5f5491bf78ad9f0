"""pyarrow without pandas: where pandas is installed, the first list that pyarrow is given would import it.

In: nothing. Out: nothing; importing this module is enough, before the first array is made. Of a command that takes half
a CPU second the import would be 0.3, in each of its processes. Whoever asks pyarrow for pandas' own objects later, as
`to_pandas` does, still gets them.
Not here: the columns of the index (columns.py).
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pyarrow does not need it here", name=name)


def _keep_out() -> None:
    """Have pyarrow look for pandas now, and not find it: it looks once, unless it is asked for pandas' objects."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


if "pandas" not in sys.modules:
    _keep_out()
