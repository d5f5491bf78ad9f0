"""A folder to be -> a tiny embedding model with random weights, as sentence-transformers would have saved it.

In: an empty or absent folder. Out: the same folder with `model.safetensors`, `config.json`, `tokenizer.json`,
`modules.json`, `1_Pooling/` and the rest; the same arguments give the same bytes. Four kinds: `make_qwen`
(last token, left padding, byte-level BPE ending in <|endoftext|>, prompts), `make_bert` (mean, right padding,
WordPiece), `make_xlmr` (cls, offset positions, Unigram, a prompt for documents too) and `make_t5` (an encoder with or
without its decoder, relative positions).
Not here: torch and transformers, so that a test of folders stays fast.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece

QUERY_PROMPT = "Instruct: Given a question, find the passages that answer it\nQuery:"
QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = re.findall(
    r"\w+",
    "the of and to in is that for it as with on be are this not or by from at which model index vector text "
    "page chunk folder file night run section manual install question answer contract ticket paper",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()[]{}<>|/\\@#$%^&*+-=_~`äöüßéèñáíóú"
CJK = "的一是不了在人有我他这中大来上国语文件日本語のはをにがとでテスト"

Weights = dict[str, np.ndarray]


def make_qwen(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    context: int = 32_768,
    document_prompt: str = "",
    query_prompt: str = QUERY_PROMPT,
    seed: int = 0,
) -> Path:
    """Qwen3-Embedding in small: last-token pooling, left padding, every text ends in <|endoftext|>."""
    tokenizer = qwen_tokenizer()
    config = _qwen_config(hidden, layers, context, tokenizer)
    _write_tokenizer(
        folder,
        tokenizer,
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 131_072,
            "padding_side": "left",
            "add_bos_token": False,
        },
    )
    _write_weights(folder, _qwen_weights(config, np.random.default_rng(seed)))
    _write(folder / "config.json", config)
    prompts = {"query": query_prompt, "document": document_prompt}
    _write_modules(folder, pooling="lasttoken", width=hidden, prompts=prompts)
    return folder


def make_bert(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    max_tokens: int = 256,
    pooling: str = "mean",
    seed: int = 0,
) -> Path:
    """MiniLM in small: mean pooling, right padding, lower-casing WordPiece, no prompts."""
    tokenizer = bert_tokenizer()
    config = _bert_config("bert", hidden, layers, tokenizer.get_vocab_size(), positions=512, pad=0)
    _write_tokenizer(
        folder,
        tokenizer,
        {
            "tokenizer_class": "BertTokenizer",
            "model_max_length": 512,
            "do_lower_case": True,
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    )
    _write_weights(folder, _bert_weights(config, np.random.default_rng(seed)))
    _write(folder / "config.json", config)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    _write_modules(folder, pooling=pooling, width=hidden, prompts={})
    return folder


def make_xlmr(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    document_prompt: str = "passage: ",
    query_prompt: str = "query: ",
    include_prompt: bool = True,
    seed: int = 0,
) -> Path:
    """An XLM-R with prompts: cls pooling, right padding, positions after the pad id (514 are 512)."""
    tokenizer = xlmr_tokenizer()
    config = _bert_config("xlm-roberta", hidden, layers, tokenizer.get_vocab_size(), positions=514, pad=1)
    config |= {"bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
    _write_tokenizer(
        folder,
        tokenizer,
        {
            "tokenizer_class": "XLMRobertaTokenizer",
            "model_max_length": 1_000_000_000_000_000_019_884_624_838_656,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "cls_token": "<s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
    )
    _write_weights(folder, _bert_weights(config, np.random.default_rng(seed)))
    _write(folder / "config.json", config)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False})
    prompts = {"query": query_prompt, "document": document_prompt}
    _write_modules(folder, pooling="cls", width=hidden, prompts=prompts, include_prompt=include_prompt)
    return folder


def make_modernbert(folder: Path, *, window: int, hidden: int = 64) -> Path:
    """A ModernBERT whose layers but the first see `window` tokens; rotary positions, mean pooling."""
    make_bert(folder, hidden=hidden)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config = {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        "dtype": "float32",
        "global_attn_every_n_layers": 3,
        "hidden_activation": "gelu",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "local_attention": window,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "pad_token_id": 0,
        "vocab_size": config["vocab_size"],
    }
    _write(folder / "config.json", config)
    _write_weights(folder, _modernbert_weights(config, np.random.default_rng(0)))
    return folder


def make_t5(folder: Path, *, decoder: bool, hidden: int = 32) -> Path:
    """A T5 with mean pooling: relative positions, `</s>` behind each text; saved whole or as its encoder alone."""
    tokenizer = xlmr_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    _write_tokenizer(folder, tokenizer, names | {"model_max_length": 512})
    config = _t5_config(hidden, tokenizer.get_vocab_size(), decoder=decoder)
    _write_weights(folder, _t5_weights(config, np.random.default_rng(0), decoder=decoder))
    _write(folder / "config.json", config)
    _write_modules(folder, pooling="mean", width=hidden, prompts={})
    return folder


def qwen_tokenizer() -> Tokenizer:
    """Qwen's pipeline (NFC, its split, byte-level BPE, the end token) over the 256 bytes and a few words."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for word in [*WORDS, *(f"Ġ{word}" for word in WORDS)]:
        _add_merges(word, vocabulary, merges)
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIALS])
    end = QWEN_SPECIALS[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"$A {end}", pair=f"$A $B:0 {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
            ),
        ]
    )
    return tokenizer


def bert_tokenizer() -> Tokenizer:
    """BERT's pipeline (lower-casing, WordPiece, [CLS] ... [SEP]) over letters, a few words and some CJK."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *LETTERS, *WORDS, *CJK, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def xlmr_tokenizer() -> Tokenizer:
    """XLM-R's pipeline (NFKC, Metaspace, Unigram, <s> ... </s>) over letters, a few words and some CJK."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = ["▁", *LETTERS, *LETTERS[:26].upper(), *CJK, *(f"▁{word}" for word in WORDS)]
    scored = [(piece, -1.0 - 0.01 * index) for index, piece in enumerate(dict.fromkeys(pieces))]
    tokenizer = Tokenizer(Unigram([*((token, 0.0) for token in specials), *scored], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*specials, "<mask>"]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _add_merges(word: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    for length in range(2, len(word) + 1):
        if word[:length] not in vocabulary:
            vocabulary[word[:length]] = len(vocabulary)
            merges.append((word[: length - 1], word[length - 1]))


def _qwen_config(hidden: int, layers: int, context: int, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "dtype": "float32",
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": context,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1_000_000,
        "tie_word_embeddings": True,
        "use_cache": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }


def _bert_config(kind: str, hidden: int, layers: int, vocabulary: int, *, positions: int, pad: int) -> dict[str, Any]:
    return {
        "architectures": ["BertModel" if kind == "bert" else "XLMRobertaModel"],
        "model_type": kind,
        "attention_probs_dropout_prob": 0.1,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": 2 * hidden,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": positions,
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "pad_token_id": pad,
        "type_vocab_size": 2,
        "vocab_size": vocabulary,
    }


def _t5_config(hidden: int, vocabulary: int, *, decoder: bool) -> dict[str, Any]:
    return {
        "architectures": ["T5Model" if decoder else "T5EncoderModel"],
        "model_type": "t5",
        "d_model": hidden,
        "d_kv": 8,
        "d_ff": 2 * hidden,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 32,
        "vocab_size": vocabulary,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "is_encoder_decoder": decoder,
        "dtype": "float32",
    }


def _t5_weights(config: dict[str, Any], random: np.random.Generator, *, decoder: bool) -> Weights:
    hidden, inner, heads = config["d_model"], config["d_ff"], config["num_heads"]
    weights = {"shared.weight": _matrix(random, config["vocab_size"], hidden)}
    for stack, parts in (("encoder", 1), ("decoder", 2))[: 1 + decoder]:
        weights[f"{stack}.final_layer_norm.weight"] = _ones(hidden)
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        weights[bias] = _matrix(random, 32, heads)
        for layer in range(config["num_layers"]):
            name = f"{stack}.block.{layer}.layer"
            for number, attention in enumerate(("SelfAttention", "EncDecAttention")[:parts]):
                for part in ("q", "k", "v"):
                    weights[f"{name}.{number}.{attention}.{part}.weight"] = _matrix(random, heads * 8, hidden)
                weights[f"{name}.{number}.{attention}.o.weight"] = _matrix(random, hidden, heads * 8)
                weights[f"{name}.{number}.layer_norm.weight"] = _ones(hidden)
            weights[f"{name}.{parts}.DenseReluDense.wi.weight"] = _matrix(random, inner, hidden)
            weights[f"{name}.{parts}.DenseReluDense.wo.weight"] = _matrix(random, hidden, inner)
            weights[f"{name}.{parts}.layer_norm.weight"] = _ones(hidden)
    return weights


def _qwen_weights(config: dict[str, Any], random: np.random.Generator) -> Weights:
    hidden, head, inner = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    weights = {
        "embed_tokens.weight": _matrix(random, config["vocab_size"], hidden),
        "norm.weight": _ones(hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        attention, mlp = f"layers.{layer}.self_attn", f"layers.{layer}.mlp"
        weights |= {
            f"{attention}.q_proj.weight": _matrix(random, queries, hidden),
            f"{attention}.k_proj.weight": _matrix(random, keys, hidden),
            f"{attention}.v_proj.weight": _matrix(random, keys, hidden),
            f"{attention}.o_proj.weight": _matrix(random, hidden, queries),
            f"{attention}.q_norm.weight": _ones(head),
            f"{attention}.k_norm.weight": _ones(head),
            f"{mlp}.gate_proj.weight": _matrix(random, inner, hidden),
            f"{mlp}.up_proj.weight": _matrix(random, inner, hidden),
            f"{mlp}.down_proj.weight": _matrix(random, hidden, inner),
            f"layers.{layer}.input_layernorm.weight": _ones(hidden),
            f"layers.{layer}.post_attention_layernorm.weight": _ones(hidden),
        }
    return weights


def _bert_weights(config: dict[str, Any], random: np.random.Generator) -> Weights:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    weights = {
        "embeddings.word_embeddings.weight": _matrix(random, config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": _matrix(random, config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": _matrix(random, config["type_vocab_size"], hidden),
        **_norm("embeddings.LayerNorm", hidden),
        **_linear(random, "pooler.dense", hidden, hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            weights |= _linear(random, f"{name}.attention.{part}", hidden, hidden, gain=2.0)
        weights |= _norm(f"{name}.attention.output.LayerNorm", hidden)
        weights |= _linear(random, f"{name}.intermediate.dense", inner, hidden)
        weights |= _linear(random, f"{name}.output.dense", hidden, inner)
        weights |= _norm(f"{name}.output.LayerNorm", hidden)
    return weights


def _modernbert_weights(config: dict[str, Any], random: np.random.Generator) -> Weights:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    weights = {
        "embeddings.tok_embeddings.weight": _matrix(random, config["vocab_size"], hidden),
        "embeddings.norm.weight": _ones(hidden),
        "final_norm.weight": _ones(hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        name = f"layers.{layer}"
        weights |= {
            f"{name}.attn.Wqkv.weight": _matrix(random, 3 * hidden, hidden),
            f"{name}.attn.Wo.weight": _matrix(random, hidden, hidden),
            f"{name}.mlp.Wi.weight": _matrix(random, 2 * inner, hidden),
            f"{name}.mlp.Wo.weight": _matrix(random, hidden, inner),
            f"{name}.mlp_norm.weight": _ones(hidden),
        }
        if layer:
            weights[f"{name}.attn_norm.weight"] = _ones(hidden)
    return weights


def _matrix(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Large enough (columns ** -0.5) that two texts differ clearly after two layers."""
    return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(columns**-0.5)


def _ones(size: int) -> np.ndarray:
    return np.ones(size, dtype=np.float32)


def _linear(random: np.random.Generator, name: str, rows: int, columns: int, *, gain: float = 1.0) -> Weights:
    weight = _matrix(random, rows, columns) * np.float32(gain)
    return {f"{name}.weight": weight, f"{name}.bias": np.zeros(rows, dtype=np.float32)}


def _norm(name: str, size: int) -> Weights:
    return {f"{name}.weight": _ones(size), f"{name}.bias": np.zeros(size, dtype=np.float32)}


def _write_weights(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", config)


def _write_modules(
    folder: Path, *, pooling: str, width: int, prompts: dict[str, str], include_prompt: bool = True
) -> None:
    names = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(names)
    ]
    _write(folder / "modules.json", modules)
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
    flags = {f"pooling_mode_{flag}": mode == pooling for mode, flag in modes.items()}
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": width, **flags, "include_prompt": include_prompt},
    )
    (folder / "2_Normalize").mkdir(exist_ok=True)
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")
