"""A folder as sentence-transformers saves it -> Model: what the model is, and that it is whole.

In: a folder on disk. Out: a frozen Model, or ModelUnavailable that says what is missing or not understood.
JSON and the safetensors headers are read, and the weights once for their digest.
Not here: finding or downloading the folder (resolve.py, hub.py); running the model (engines/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedcli import records
from embedcli.errors import ModelUnavailable
from embedcli.models.files import (
    OTHER_MODEL,
    Json,
    file_digest,
    load_json,
    missing_part,
    read_json,
    weight_files,
    weights_digest,
)
from embedcli.paths import is_file

MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
KNOWN_POOLINGS = frozenset({"cls", "max", "mean", "lasttoken"})

ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Kinds with a decoder of which only the encoder is run, and the class of transformers that loads the encoder."""

UNRUNNABLE = frozenset(
    {"blenderbot", "blenderbot-small", "longt5", "m2m_100", "marian", "moonshine", "pegasus", "pegasus_x"}
    | {"prophetnet", "switch_transformers", "t5gemma", "t5gemma2", "t5gemma2_text", "udop", "whisper"}
)
"""Kinds that need more than token ids, even where only their encoder was saved."""

OWN_NORMALIZER = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})
"""The tokenizer classes of transformers that leave the normalizer of tokenizer.json as it is."""

OFFSET_POSITIONS = frozenset({"camembert", "data2vec-text", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Their positions begin after the pad id: a table of 514 holds 512 tokens."""

HARMLESS = {
    "model": {"add_pooling_layer", "attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype"},
    "config": {"use_cache"},
    "processor": {"padding_side", "use_fast"},
}
"""What sentence-transformers may be told for loading a model, its config and its tokenizer that moves no vector."""

OLD_NAMES = {"model": "model_args", "config": "config_args", "processor": "tokenizer_args"}
ALL_LOADING = {"cache_dir", "local_files_only", "revision", "token", "trust_remote_code", "use_safetensors"}
PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}

QWEN3_CONTEXT = 32_768
"""The context that Qwen3-Embedding was made for; the larger models of the family state 40,960 positions."""

NO_LIMIT = 10**9
"""Tokenizers without a limit state 10**30."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this disk, and what its vectors depend on. The digests are its identity, not the name."""

    name: str
    folder: Path
    commit: str | None
    weights_digest: str
    tokenizer_digest: str
    pooling: str
    prompt: str
    query_prompt: str
    width: int
    max_tokens: int
    matryoshka: bool
    padding_side: str
    end_token_id: int | None
    include_prompt: bool

    @property
    def english(self) -> bool:
        """Whether it was trained on English alone."""
        return self.weights_digest == MINILM_WEIGHTS

    @property
    def fingerprint(self) -> str:
        """What makes vectors comparable, less dim and quantization, which are the engine's to choose."""
        special = "" if self.end_token_id is None else self.end_token_id
        return records.digest(
            self.weights_digest,
            self.tokenizer_digest,
            self.pooling,
            self.prompt,
            self.include_prompt,
            special,
        )


def read_model(folder: Path, *, name: str, commit: str | None, cache: Path | None) -> Model:
    """The model in the folder, checked to be whole and of a kind that we run."""
    config = _checked_config(folder)
    pooling_config = _pooling_config(folder)
    if part := missing_part(folder):
        hint = "fetch it again with `embedcli pull` and its hub id, or save the folder anew"
        raise ModelUnavailable(f"the model is incomplete, {part}: `{folder}`", hint)
    bert, tokenizer, tokenizer_config = _bert_config(folder), *_tokenizer_configs(folder)
    _check_settings(folder, bert)
    _check_lower_case(folder, bert, tokenizer)
    _check_agreement(folder, tokenizer, tokenizer_config)
    sentence = read_json(folder / "config_sentence_transformers.json", optional=True)
    pooling = _pooling(folder, pooling_config)
    last_token_qwen = pooling == "lasttoken" and config.get("model_type") == "qwen3"
    return Model(
        name=name,
        folder=folder,
        commit=commit,
        weights_digest=weights_digest(folder, cache),
        tokenizer_digest=file_digest(folder / "tokenizer.json", cache=cache),
        pooling=pooling,
        prompt=_prompt(sentence, "document"),
        query_prompt=_prompt(sentence, "query"),
        width=_width(folder, config, pooling_config),
        max_tokens=_max_tokens(folder, config, bert, tokenizer_config, qwen=last_token_qwen),
        matryoshka=last_token_qwen or any(_states_matryoshka(part) for part in (config, sentence)),
        padding_side=str(tokenizer_config.get("padding_side", "right")),
        end_token_id=_end_token_id(tokenizer.get("post_processor")),
        include_prompt=bool(pooling_config.get("include_prompt", True)),
    )


def _checked_config(folder: Path) -> Json:
    """config.json of a folder that is meant to be an embedding model whose code is not in the folder."""
    if not is_file(folder / "config.json"):
        raise ModelUnavailable(f"the folder holds no model, it has no config.json: `{folder}`", OTHER_MODEL)
    if not is_file(folder / "modules.json"):
        raise ModelUnavailable(f"`{folder}` is not an embedding model: it has no modules.json", OTHER_MODEL)
    if not weight_files(folder) and (any(folder.glob("*.bin")) or any(folder.glob("*.pt"))):
        raise ModelUnavailable(f"the weights are pickled, which may run code, not safetensors: `{folder}`", OTHER_MODEL)
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise ModelUnavailable(f"the model brings its own code, which is never run: `{folder}`", OTHER_MODEL)
    _check_kind(folder, config)
    _check_weights(folder, config)
    return config


def _check_kind(folder: Path, config: Json) -> None:
    """Refuse kinds of models that need more than token ids, as those with a decoder or for images: they would fail
    later."""
    kind = config.get("model_type")
    decodes = bool(config.get("is_encoder_decoder")) and kind not in ENCODERS
    if decodes or kind in UNRUNNABLE or any(f"{sense}_config" in config for sense in ("vision", "audio")):
        raise ModelUnavailable(f"this kind of model cannot be run, `{kind}`: `{folder}`", OTHER_MODEL)


def _check_weights(folder: Path, config: Json) -> None:
    """Refuse weights of few bits: no engine of ours for CPUs takes them, so that each query would need a card too; and
    how far their vectors may differ from batch to batch is known of `--quantization` only."""
    stated = config.get("quantization_config") or config.get("compression_config")
    if stated or is_file(folder / "hf_quant_config.json"):
        method = stated.get("quant_method") if isinstance(stated, dict) else None
        raise ModelUnavailable(
            f"the model's weights are quantized{f', `{method}`' if method else ''}: `{folder}`",
            "name the model that it was made from with `--model`",
        )


def _pooling_config(folder: Path) -> Json:
    """The Pooling module's settings; any module but the three that we run is refused by name."""
    pooling: Json | None = None
    for module in _read_modules(folder):
        package, _, kind = str(module.get("type")).rpartition(".")
        path = str(module.get("path", ""))
        if not package.startswith("sentence_transformers.") or kind not in KNOWN_MODULES:
            raise ModelUnavailable(f"the model has a module that we cannot run: `{module.get('type')}`", OTHER_MODEL)
        if kind == "Transformer" and path not in {"", "."}:
            raise ModelUnavailable(f"the model's transformer lies in a sub-folder: `{folder / path}`", OTHER_MODEL)
        if kind == "Pooling":
            pooling = read_json(folder / path / "config.json")
    if pooling is None:
        raise ModelUnavailable(f"`{folder}` is not an embedding model: it does not say how to pool", OTHER_MODEL)
    return pooling


def _pooling(folder: Path, config: Json) -> str:
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [mode for flag, mode in POOLINGS.items() if config.get(flag)] or ["mean"]
    modes = [stated] if isinstance(stated, str) else list(stated)
    if len(modes) != 1 or modes[0] not in KNOWN_POOLINGS:
        raise ModelUnavailable(f"unsupported pooling: `{'+'.join(modes)}`", OTHER_MODEL)
    return str(modes[0])


def _bert_config(folder: Path) -> Json:
    """sentence_bert_config.json, or by the name of another family (sentence_roberta_config.json ...)."""
    others = sorted(folder.glob("sentence_*_config.json"))
    files = [folder / "sentence_bert_config.json", *others]
    return next((read_json(file) for file in files if is_file(file)), {})


def _tokenizer_configs(folder: Path) -> tuple[Json, Json]:
    return read_json(folder / "tokenizer.json"), read_json(folder / "tokenizer_config.json", optional=True)


def _check_settings(folder: Path, bert: Json) -> None:
    """Refuse a model for which sentence-transformers changes the text, its tokens or the network, by settings of its
    own: a chat around the text, no special tokens, another tokenizer, fewer layers."""
    if stated := next(_settings_that_count(bert), None):
        raise ModelUnavailable(f"the model has settings that we cannot follow, `{stated}`: `{folder}`", OTHER_MODEL)


def _settings_that_count(bert: Json) -> Iterator[str]:
    if bert.get("transformer_task", "feature-extraction") != "feature-extraction":
        yield "transformer_task"
    modalities = bert.get("modality_config") or {"text": PLAIN_TEXT}
    if modalities.get("text") != PLAIN_TEXT or "message" in modalities:
        yield "modality_config"
    processing = bert.get("processing_kwargs") or {}
    if processing.get("text") or processing.get("common"):
        yield "processing_kwargs"
    yield from (name for name in ("query_expansion", "query_length", "tokenizer_name_or_path") if bert.get(name))
    for what, harmless in HARMLESS.items():
        for name in (f"{what}_kwargs", OLD_NAMES[what]):
            yield from (f"{name}.{key}" for key in bert.get(name) or {} if key not in harmless | ALL_LOADING)


def _check_lower_case(folder: Path, bert: Json, tokenizer: Json) -> None:
    """Refuse a model whose lower-casing is left to sentence-transformers: we embed what tokenizer.json gives."""
    normalizer = json.dumps(tokenizer.get("normalizer"))
    if bert.get("do_lower_case") and '"lowercase": true' not in normalizer and '"Lowercase"' not in normalizer:
        raise ModelUnavailable(f"the model lower-cases outside its tokenizer: `{folder}`", OTHER_MODEL)


def _check_agreement(folder: Path, tokenizer: Json, stated: Json) -> None:
    """Refuse a BERT whose two tokenizer files disagree: transformers, and so sentence-transformers, normalizes as
    tokenizer_config.json states, we as tokenizer.json states."""
    normalizer = tokenizer.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or stated.get("tokenizer_class") in OWN_NORMALIZER:
        return
    lower = bool(stated.get("do_lower_case", True))
    accents, own_accents = stated.get("strip_accents"), normalizer.get("strip_accents")
    pairs = {
        "lower-casing": (lower, bool(normalizer.get("lowercase"))),
        "accents": (
            lower if accents is None else accents,
            normalizer.get("lowercase") if own_accents is None else own_accents,
        ),
        "Chinese characters": (stated.get("tokenize_chinese_chars", True), normalizer.get("handle_chinese_chars")),
    }
    for what, (theirs, ours) in pairs.items():
        if bool(theirs) != bool(ours):
            names = "tokenizer_config.json and tokenizer.json"
            raise ModelUnavailable(f"the model's {names} disagree on {what}: `{folder}`", OTHER_MODEL)


def _prompt(sentence: Json, name: str) -> str:
    """The prompt called `name`, else an empty one, as encode_document and encode_query choose; never the default."""
    return str((sentence.get("prompts") or {}).get(name) or "")


def _width(folder: Path, config: Json, pooling: Json) -> int:
    for stated in (
        pooling.get("embedding_dimension"),
        pooling.get("word_embedding_dimension"),
        config.get("hidden_size"),
        config.get("d_model"),
    ):
        if isinstance(stated, int):
            return stated
    raise ModelUnavailable(f"the model does not state the width of its vectors: `{folder}`", OTHER_MODEL)


def _max_tokens(folder: Path, config: Json, bert: Json, tokenizer_config: Json, *, qwen: bool) -> int:
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and config.get("model_type") in OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    own = [bert.get("max_seq_length"), bert.get("document_length")]
    stated = [*own, positions, tokenizer_config.get("model_max_length")]
    limits = [int(limit) for limit in stated if isinstance(limit, int | float) and 0 < limit < NO_LIMIT]
    if not limits:
        raise ModelUnavailable(f"the model does not state how many tokens it takes: `{folder}`", OTHER_MODEL)
    return min([*limits, QWEN3_CONTEXT] if qwen else limits)


def _states_matryoshka(config: Json) -> bool:
    return bool(config.get("is_matryoshka") or config.get("matryoshka_dimensions"))


def _end_token_id(processor: Json | None) -> int | None:
    """The id of the special token that the post-processor puts behind a text."""
    if processor is None:
        return None
    if processor["type"] == "Sequence":
        ends = [_end_token_id(step) for step in processor["processors"]]
        return next((end for end in reversed(ends) if end is not None), None)
    if "sep" in processor:  # BertProcessing, RobertaProcessing: ["[SEP]", 102]
        return int(processor["sep"][1])
    last = processor.get("single", [{}])[-1].get("SpecialToken")
    return int(processor["special_tokens"][last["id"]]["ids"][-1]) if last else None


def _read_modules(folder: Path) -> list[Json]:
    modules = load_json(folder / "modules.json")
    return [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
