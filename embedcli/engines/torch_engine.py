"""A model folder -> an engine on the CPU or any other device of torch.

In: a Model whose files are on this disk. Out: an Engine whose vectors are those of sentence-transformers.
Not here: who feeds it (feeder.py), which model (models/resolve.py), tokenising. The one door of torch and transformers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import transformers

from embedcli.engines.contract import Engine, truncate
from embedcli.errors import EngineDied, EngineError, EngineOutOfMemory
from embedcli.models.folder import ENCODERS, Model
from embedcli.models.tokenizer import load_tokenizer

CPU_TOKENS_PER_THREAD = 1_024
"""A batch whose activations stay in the cache: on 2 cores MiniLM does more at 2,048 tokens than at 32,768."""

CPU_ROWS = 64
CARD_TOKENS = 16_384
CARD_ROWS = 256
CPU_HINT = "--device cpu"


def open_engine(model: Model, *, dim: int, device: str) -> Engine:
    """Load the model; minutes for a large one. `device` is a name of torch's: cpu, cuda, cuda:1, mps."""
    if not 1 <= dim <= model.width:
        raise EngineError(f"the model's vectors have {model.width} components, not `{dim}`", "--dim")
    where = _device(device)
    network = _load(model, where)
    return TorchEngine(network, model=model, dim=dim, device=where, skipped_tokens=_skipped_tokens(model))


def _skipped_tokens(model: Model) -> int:
    """The ids at the start of every row that do not count in its pooling: special tokens and a prompt left out."""
    if model.include_prompt or not model.prompt:
        return 0
    tokens = load_tokenizer(model.folder, prompt=model.prompt)
    return tokens.overhead - len(tokens.suffix_ids)


class TorchEngine:
    """One worker thread runs the batches in the order of their submission."""

    padded = True
    depth = 2

    def __init__(self, network: Any, *, model: Model, dim: int, device: torch.device, skipped_tokens: int) -> None:
        on_cpu = device.type == "cpu"
        self.dim = dim
        self.max_tokens = model.max_tokens
        self.vocabulary: int | None = int(network.get_input_embeddings().num_embeddings)
        self.device = str(device)
        self.batch_tokens = CPU_TOKENS_PER_THREAD * torch.get_num_threads() if on_cpu else CARD_TOKENS
        self.batch_rows = CPU_ROWS if on_cpu else CARD_ROWS
        self._network = network
        self._pooling = model.pooling
        self._where = device
        self._skipped_tokens = skipped_tokens
        self._pad_id = int(network.config.pad_token_id or 0)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedcli-torch")

    def submit(self, rows: Sequence[np.ndarray]) -> Future[np.ndarray]:
        return self._worker.submit(self._embed, rows)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _embed(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        if not rows:
            return np.empty((0, self.dim), np.float32)
        try:
            with torch.inference_mode():
                pooled = self._forward(rows).cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise EngineOutOfMemory(f"out of memory on `{self.device}`", CPU_HINT) from error
        except RuntimeError as error:
            raise _translated(error, self.device) from error
        return truncate(pooled, self.dim)

    def _forward(self, rows: Sequence[np.ndarray]) -> torch.Tensor:
        """Padding goes behind for every model.

        Where a text is read from left to right its last token sees nothing that follows, and positions count from
        the first token: the vector is that of padding in front, without positions to mend.
        """
        lengths = torch.tensor([row.size for row in rows])
        longest = int(lengths.max())
        ids = np.full((len(rows), longest), self._pad_id, dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : row.size] = row
        real = torch.arange(longest)[None, :] < lengths[:, None]
        mask = None if bool(real.all()) else real.long().to(self._where)
        tokens = torch.from_numpy(ids).to(self._where)
        options = {} if not hasattr(self._network.config, "use_cache") else {"use_cache": False}
        states = self._network(input_ids=tokens, attention_mask=mask, **options).last_hidden_state
        return pool(
            states.float(),
            real.to(self._where),
            lengths.to(self._where),
            pooling=self._pooling,
            skipped_tokens=self._skipped_tokens,
        )


def pool(
    states: torch.Tensor, real: torch.Tensor, lengths: torch.Tensor, *, pooling: str, skipped_tokens: int
) -> torch.Tensor:
    """One vector a row of [rows, tokens, width] padded behind; the first `skipped_tokens` do not count."""
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
    raise EngineError(f"this pooling is not known: `{pooling}`", "name another model with `--model`")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"there is no such kind of device: `{name}`", CPU_HINT) from error
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device.type, False):
        raise EngineError(f"this torch ({torch.__version__}) has no device `{name}`", CPU_HINT)
    if device.type != "cuda":
        return device
    if (device.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"there are {torch.cuda.device_count()} cards, none is `{name}`", CPU_HINT)
    return torch.device("cuda", device.index or 0)


def _load(model: Model, device: torch.device) -> Any:
    chatter: Any = transformers.utils.logging  # untyped; progress is ours to show
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes of library to library, none for a user
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
    """Weights that are missing would be random ones. A pooler of BERT's kind is never asked."""
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise EngineError(
            f"the model lacks {len(missing)} weights, `{missing[0]}` among them: `{model.folder}`",
            "fetch it again with `embedcli pull`",
        )
    if int(network.config.hidden_size) != model.width:
        raise EngineError(
            f"the model is {network.config.hidden_size} wide and says {model.width}: `{model.folder}`",
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
