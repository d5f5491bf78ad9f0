"""`search`: a Searcher over an index, with the engine that its model needs on this machine.

In: an index, what makes the tools of a run. Out: a Searcher; no engine is opened before a query needs a vector.
Not here: the search itself (search/searcher.py), what is printed (cli/search.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from embedcli.engines import nvml, query
from embedcli.engines.probe import Reference
from embedcli.engines.query import IndexModel
from embedcli.fingerprints import PROBE_VERSION
from embedcli.search.query_vector import Queries, QueryVectors
from embedcli.search.searcher import Searcher

if TYPE_CHECKING:
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.report import Say
    from embedcli.run.tools import Tools

MakeTools = Callable[[str], "Tools"]
"""Makes the tools of a run for the engine of that name."""


def searcher(index: Index, make_tools: MakeTools, say: Say) -> Searcher:
    return Searcher(index, query_vectors(index, make_tools, say))


def query_vectors(index: Index, make_tools: MakeTools, say: Say) -> QueryVectors:
    """Vectors by the index's own model: on this machine's card where the index was built on one, else on the CPU."""

    def open_queries(generation: Generation) -> Queries:
        settings = generation.settings
        on_card = settings.device_kind == "cuda" and nvml.has_nvidia_card()
        tools = make_tools("torch" if on_card else "auto")  # SGLang would take a minute to start
        return query.open_queries(
            IndexModel(settings, generation.fingerprints.model, _reference(index, generation)),
            say=say,
            open_engine=lambda model: tools.open_engine(model, settings, "cuda" if on_card else "cpu"),
        )

    return QueryVectors(open_queries)


def _reference(index: Index, generation: Generation) -> Reference | None:
    """How the index's first engine embedded the probe set; None where nothing can be compared with it."""
    vectors = index.probe(generation.number)
    if generation.probe_version != PROBE_VERSION or not len(vectors):
        return None
    return Reference(vectors, generation.probe_max_tokens)
