"""The folder of the model that the manifest names for queries, when it is not there any more.

In: an index and its current generation. Out: the manifest with the folder in which the model lies now, or a warning.
Not here: the recipe of a new generation (models/resolve.py).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from embedcli.config import mirrored_url
from embedcli.errors import ModelUnavailable
from embedcli.models.resolve import of_recipe

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.report import Report


def mend_recipe(index: Index, current: Generation, report: Report) -> None:
    """Look for the model anew where its folder is gone, as after a move of the environment; nothing is downloaded.

    Readers see the manifest as it was or with the other folder: it is replaced by one rename. That of an index in a
    bucket is the same on all machines, and each finds the model where it has it.
    """
    folder = str(current.query["folder"])
    if os.path.isdir(folder):
        return
    try:
        model = of_recipe(current.query)
    except ModelUnavailable as error:
        report.warn(f"`{folder}`, which the manifest names for queries, is gone: {error}; {error.hint}")
        return
    if mirrored_url(index.folder) is not None:
        return
    manifest = index.path(current.number) / "manifest.json"
    data = json.loads(manifest.read_bytes())
    data["query"]["folder"] = str(model.folder)
    written = json.dumps(data, indent=1).encode()
    index.disk.write(manifest, lambda sink: sink.write(written))
    report.line(f"the manifest names `{model.folder}` for queries now; `{folder}` is gone")
