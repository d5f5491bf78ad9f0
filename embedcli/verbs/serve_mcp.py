"""`serve --mcp`: an index as tools of a language model, over stdin and stdout.

In: an index. Out: answers on stdout until stdin ends; everything for people goes to stderr.
Not here: the tools (serving/mcp.py).
"""

from __future__ import annotations

import dataclasses
import signal
from typing import TYPE_CHECKING

from embedcli.index.generations import current_of
from embedcli.search.searcher import Searcher
from embedcli.serving import mcp
from embedcli.standard_input import readable_stdin
from embedcli.verbs.search import query_vectors
from embedcli.verbs.status import status

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.report import Say
    from embedcli.run.tools import Tools


def serve_mcp(index: Index, *, tools: Tools, say: Say) -> None:
    """Serve until stdin ends. Raises NoIndex, InputError."""
    current_of(index)
    readable_stdin()
    vectors = query_vectors(index, lambda _: tools, say)
    for number in (signal.SIGINT, signal.SIGTERM):  # nothing is being written: a signal ends the process at once
        signal.signal(number, signal.SIG_DFL)
    try:
        mcp.run(Searcher(index, vectors), lambda: dataclasses.asdict(status(index)))
    finally:
        vectors.close()
