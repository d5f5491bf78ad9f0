"""A model folder -> an engine on the CPU or any other device of torch.

In: a Model whose files are on this disk. Out: an Engine whose vectors are those of sentence-transformers.
Not here: who feeds it (feeder.py), which model (models/resolve.py), tokenising. The one door of torch and transformers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

from embedcli.cores import engine_threads
from embedcli.engines.contract import Engine, check_dim, on_worker, truncate
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.models.folder import ENCODERS, Model
from embedcli.models.tokenizer import skipped_tokens

CPU_TOKENS_PER_THREAD = 1_024
"""The activations of such a batch stay in the cache: on 2 cores MiniLM is faster at 2,048 tokens than at 32,768."""

CPU_ROWS = 64
CARD_TOKENS = 16_384
CARD_ROWS = 256
CPU_HINT = "run it on the CPU with `--device cpu`"


def open_engine(model: Model, *, dim: int, device: str, threads: int | None = None) -> Engine:
    """Load the model, which takes minutes if it is large. `device` is a name of torch's: cpu, cuda, cuda:1, mps;
    `threads` are those of the CPU, by default one a core.

    Raises EngineError.
    """
    check_dim(model, dim)
    where = _device(device)
    torch.set_num_threads(engine_threads(threads))
    network = load_network(model, where)
    return TorchEngine(network, model=model, dim=dim, device=where, skipped_tokens=skipped_tokens(model))


class TorchEngine:
    """One worker thread runs the batches in the order in which they were submitted."""

    padded = True
    depth = 2

    def __init__(self, network: Any, *, model: Model, dim: int, device: torch.device, skipped_tokens: int) -> None:
        on_cpu = device.type == "cpu"
        self.dim = dim
        self.max_tokens = model.max_tokens
        self.vocabulary: int | None = int(network.get_input_embeddings().num_embeddings)
        self.device = str(device)
        self.precision = str(_dtype(device)).removeprefix("torch.")
        self.batch_tokens = CPU_TOKENS_PER_THREAD * torch.get_num_threads() if on_cpu else CARD_TOKENS
        self.batch_rows = CPU_ROWS if on_cpu else CARD_ROWS
        self._network = network
        self._where = device
        self._pool = partial(pool, pooling=model.pooling, skipped_tokens=skipped_tokens)
        self._pad_id = int(network.config.pad_token_id or 0)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedcli-torch")

    def submit(self, batch: Sequence[np.ndarray]) -> Future[np.ndarray]:
        return on_worker(self._worker, self._embed, batch)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        if not batch:
            return np.empty((0, self.dim), np.float32)
        try:
            with torch.inference_mode():
                pooled = self._forward(batch).cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EngineOutOfMemory(f"out of memory on `{self.device}`", CPU_HINT) from error
        except RuntimeError as error:
            raise _translated(error, self.device) from error
        return truncate(pooled, self.dim)

    def _forward(self, batch: Sequence[np.ndarray]) -> torch.Tensor:
        """Pooled vectors [chunks, width]. The padding comes after the ids, for every model.

        A model that reads from left to right gives the last token the same state with padding after it as with padding
        before it, and positions count from the first token: no position has to be corrected.
        """
        lengths = torch.tensor([ids.size for ids in batch])
        longest = int(lengths.max())
        padded = np.full((len(batch), longest), self._pad_id, dtype=np.int64)
        for number, ids in enumerate(batch):
            padded[number, : ids.size] = ids
        real = torch.arange(longest)[None, :] < lengths[:, None]
        mask = None if bool(real.all()) else real.long().to(self._where)
        tokens = torch.from_numpy(padded).to(self._where)
        options = {} if not hasattr(self._network.config, "use_cache") else {"use_cache": False}
        states = self._network(input_ids=tokens, attention_mask=mask, **options).last_hidden_state
        return self._pool(states.float(), real.to(self._where), lengths.to(self._where))


def pool(
    states: torch.Tensor, real: torch.Tensor, lengths: torch.Tensor, *, pooling: str, skipped_tokens: int
) -> torch.Tensor:
    """One vector for each chunk of `states`, [chunks, tokens, width] with the padding last, where `real` is False.

    The first `skipped_tokens` of each chunk do not count.
    """
    if pooling == "cls":
        first = torch.where(lengths > skipped_tokens, skipped_tokens, 0)
        return states[torch.arange(len(states), device=states.device), first]
    if pooling == "lasttoken":
        return states[torch.arange(len(states), device=states.device), lengths - 1]
    counted = real.clone()
    counted[:, :skipped_tokens] = False
    counted = torch.where(counted.any(dim=1, keepdim=True), counted, real)[..., None]
    if pooling == "max":
        return states.masked_fill(~counted, -torch.inf).amax(dim=1)
    if pooling == "mean":
        return (states * counted).sum(dim=1) / counted.sum(dim=1)
    raise EngineError(f"unsupported pooling: `{pooling}`", "name another model with `--model`")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"torch has no such kind of device: `{name}`", CPU_HINT) from error
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device.type, False):
        raise EngineError(f"this torch ({torch.__version__}) has no device `{name}`", CPU_HINT)
    if device.type != "cuda":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"there are {torch.cuda.device_count()} cards, none is `{name}`", CPU_HINT)
    return torch.device("cuda", device.index or 0)


def load_network(model: Model, device: torch.device) -> Any:
    """The network in evaluation mode on that device. Raises EngineError."""
    chatter: Any = transformers.utils.logging  # untyped; the report shows our own progress
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings from one library to another, none for a user
            network, found = _network_class(model).from_pretrained(
                model.folder,
                dtype=_dtype(device),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        _check_loaded(model, network, found)
        return network.eval().to(device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EngineOutOfMemory(f"the model does not fit on `{device}`: `{model.name}`", CPU_HINT) from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise EngineError(
            f"the model cannot be loaded: `{model.folder}`: {type(error).__name__}: {first_line}",
            "name another model with `--model`",
        ) from error


def _network_class(model: Model) -> Any:
    """The class that loads the network: of a kind with a decoder, as T5, the encoder alone."""
    kind = transformers.AutoConfig.from_pretrained(model.folder, local_files_only=True).model_type
    return getattr(transformers, ENCODERS[kind]) if kind in ENCODERS else transformers.AutoModel


def _check_loaded(model: Model, network: Any, found: dict[str, Any]) -> None:
    """Raise EngineError where weights are missing: torch would fill in random ones. BERT's pooler is never used."""
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise EngineError(
            f"the model lacks {len(missing)} weights, `{missing[0]}` among them: `{model.folder}`",
            "fetch the model again with `embedcli pull`",
        )
    if int(network.config.hidden_size) != model.width:
        raise EngineError(
            f"the weights are {network.config.hidden_size} wide, the settings say {model.width}: `{model.folder}`",
            "name another model with `--model`",
        )


def _dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32


def _translated(error: RuntimeError, device: str) -> EngineDied:
    first_line = str(error).strip().partition("\n")[0]
    if "out of memory" in first_line.lower() or "can't allocate memory" in str(error):
        return EngineOutOfMemory(f"out of memory on `{device}`", CPU_HINT)
    return EngineDied(f"torch failed on `{device}`: {first_line}")
