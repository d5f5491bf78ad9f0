"""`search`: a Searcher over an index, with the engine that its model needs on this machine.

In: an index, what makes the tools of a run. Out: a Searcher; no engine is opened before a query needs a vector.
Not here: the search itself (search/searcher.py), what is printed (cli/search.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from embedcli.config import Options
from embedcli.search.query_vector import QueryVectors, with_engine
from embedcli.search.searcher import Searcher

if TYPE_CHECKING:
    from embedcli.config import IndexSettings
    from embedcli.engines.contract import Engine
    from embedcli.index.generations import Index
    from embedcli.index.manifest import Generation
    from embedcli.models.folder import Model
    from embedcli.run.tools import Tools

MakeTools = Callable[[str], "Tools"]
"""Makes the tools of a run for the engine of that name."""


def searcher(index: Index, make_tools: MakeTools) -> Searcher:
    return Searcher(index, query_vectors(index, make_tools))


def query_vectors(index: Index, make_tools: MakeTools) -> QueryVectors:
    """Vectors by the index's own model, on this machine's card where the index was built on one, else on the CPU.

    SGLang takes a minute to start, so only vectors of quantized weights, which torch cannot make, wait for it.
    """

    def open_model(generation: Generation) -> tuple[Model, Engine]:
        settings = generation.settings
        tools = make_tools("auto" if settings.quantization else "torch")
        device = query_device(settings)
        model = tools.resolve(Options(index=index.folder, device=device), settings)
        return model, tools.open_engine(model, settings, device)

    return QueryVectors(with_engine(index, open_model))


def query_device(settings: IndexSettings) -> str:
    from embedcli.engines import nvml

    return "cuda" if settings.device_kind == "cuda" and nvml.has_nvidia_card() else "cpu"
