"""The arguments SGLang is started with, card by card and model by model; no card needed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from embedcli.engines.nvml import Card
from embedcli.engines.sglang.settings import (
    GIB,
    EngineArguments,
    SGLangSettings,
    Shape,
    has_flash,
    own_forward_problem,
    plan,
    read_shape,
    usable_bytes,
)
from embedcli.errors import EngineError, EngineOutOfMemory


def card(name: str, capability: tuple[int, int], total_gib: float, *, free_gib: float | None = None) -> Card:
    free = total_gib - 0.5 if free_gib is None else free_gib
    return Card(0, "GPU-1", name, capability, int(total_gib * GIB), int(free * GIB), "580.65", (13, 0))


A10 = card("NVIDIA A10", (8, 6), 22.5)
RTX_4090 = card("NVIDIA GeForce RTX 4090", (8, 9), 24)
PRO_4000 = card("NVIDIA RTX PRO 4000", (12, 0), 24)
A100 = card("NVIDIA A100", (8, 0), 40)
B200 = card("NVIDIA B200", (10, 0), 180)
RTX_5090 = card("NVIDIA GeForce RTX 5090", (12, 0), 32)
H100 = card("NVIDIA H100 80GB HBM3", (9, 0), 80)
H200 = card("NVIDIA H200", (9, 0), 140)
CARDS = [A10, RTX_4090, RTX_5090, H100, H200]
ALL_CARDS = [*CARDS, PRO_4000, A100, B200]


def qwen(layers: int, hidden: int, intermediate: int, heads: int, *, tied: bool) -> dict[str, object]:
    return {
        "model_type": "qwen3",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_669,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": tied,
    }


SMALL = read_shape(qwen(28, 1_024, 3_072, 16, tied=True))
MIDDLE = read_shape(qwen(36, 2_560, 9_728, 32, tied=True))
LARGE = read_shape(qwen(36, 4_096, 12_288, 32, tied=False))


def planned(card: Card, shape: Shape, asked: SGLangSettings | None = None) -> EngineArguments:
    return plan(card, shape, max_tokens=32_768, asked=asked or SGLangSettings())


def test_the_sizes_are_those_of_the_published_models() -> None:
    assert SMALL.weights_bytes(None) == pytest.approx(1.19e9, rel=0.02)
    assert MIDDLE.weights_bytes(None) == pytest.approx(8.04e9, rel=0.02)
    assert LARGE.weights_bytes(None) == pytest.approx(15.1e9 + 151_669 * 4_096 * 2, rel=0.02)
    assert [shape.pool_token_bytes // 1024 for shape in (SMALL, MIDDLE, LARGE)] == [112, 144, 144]


@pytest.mark.parametrize("card", ALL_CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("shape", [SMALL, MIDDLE], ids=["0.6B", "4B"])
def test_the_two_smaller_models_fit_every_card_with_their_longest_row(card: Card, shape: Shape) -> None:
    chosen = planned(card, shape)
    assert chosen.need_bytes <= card.free_bytes
    assert chosen.max_tokens == 32_768
    assert chosen.arguments["context_length"] == 32_769


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("small_card", [A10, RTX_4090, PRO_4000], ids=lambda card: card.name)
def test_4b_leaves_4_gib_of_a_24_gib_card_alone_with_the_longest_row(small_card: Card, flash: bool) -> None:
    chosen = plan(small_card, MIDDLE, max_tokens=32_768, asked=SGLangSettings(), flash=flash)
    assert chosen.need_bytes <= 20 * GIB and chosen.max_tokens == 32_768


@pytest.mark.parametrize(
    ("card", "flash"),
    [
        (A10, True),
        (RTX_4090, True),
        (A100, True),
        (H100, True),
        (H200, True),
        (RTX_5090, False),
        (PRO_4000, False),
        (B200, False),
    ],
)
def test_attention_and_pool_follow_the_capability(card: Card, flash: bool) -> None:
    chosen = planned(card, MIDDLE).arguments
    assert has_flash(card) == flash
    assert chosen["attention_backend"] == ("fa3" if flash else None)
    assert chosen["prefill_only_disable_kv_cache"] is flash
    assert chosen["chunked_prefill_size"] == -1 and chosen["disable_radix_cache"] is True


def test_a_small_card_has_smaller_batches_and_fewer_rows() -> None:
    assert [planned(card, MIDDLE).batch_tokens for card in CARDS] == [16_384, 16_384, 16_384, 32_768, 32_768]
    assert planned(RTX_5090, MIDDLE, SGLangSettings(max_tokens=512)).batch_tokens == 32_768
    assert planned(RTX_4090, MIDDLE).arguments["max_running_requests"] == 512


def test_a_real_pool_holds_two_batches_and_the_longest_row() -> None:
    chosen = planned(RTX_5090, MIDDLE)
    left_for_pool = chosen.arguments["mem_fraction_static"] * RTX_5090.free_bytes - MIDDLE.weights_bytes(None)
    assert left_for_pool / MIDDLE.pool_token_bytes > 32_768 + 2 * chosen.batch_tokens


@pytest.mark.parametrize("card", ALL_CARDS, ids=lambda card: card.name)
def test_the_share_of_memory_is_always_stated_and_counts_the_longest_row(card: Card) -> None:
    chosen = planned(card, MIDDLE)
    fraction = chosen.arguments["mem_fraction_static"]
    assert 0 < fraction <= 0.95
    counted = fraction * card.free_bytes - MIDDLE.weights_bytes(None) - GIB
    assert counted / MIDDLE.pool_token_bytes > 32_768


def test_a_model_that_does_not_fit_says_what_it_needs_and_what_helps() -> None:
    small = card("NVIDIA RTX A2000", (8, 6), 6)
    with pytest.raises(EngineError, match=r"needs \d+\.\d GiB, the card has 5\.5 of 6\.0 GiB to give") as caught:
        planned(small, MIDDLE)
    assert caught.value.exit_code == 13 and type(caught.value) is EngineError
    assert caught.value.hint == "for a new index: `--model Qwen/Qwen3-Embedding-0.6B`"


def test_the_hint_names_the_settings_of_a_new_index_that_would_fit_and_no_others() -> None:
    # quantized while loading, so the weights must fit in full; what is saved is room for a pool
    tight = card("NVIDIA RTX PRO 4000", (12, 0), 25)
    with pytest.raises(EngineError) as caught:
        planned(tight, LARGE)
    smaller_model = "`--model Qwen/Qwen3-Embedding-0.6B`"
    assert caught.value.hint == f"for a new index: `--max-tokens 512` or `--quantization fp8` or {smaller_model}"
    assert planned(tight, LARGE, SGLangSettings(quantization="fp8")).arguments["quantization"] == "fp8"
    assert planned(tight, LARGE, SGLangSettings(max_tokens=512)).max_tokens == 512
    with pytest.raises(EngineError) as caught:
        planned(card("NVIDIA T400", (8, 6), 2), SMALL)
    assert caught.value.hint == "go on slowly with `--device cpu`"


@pytest.mark.parametrize("shape", [SMALL, MIDDLE], ids=["0.6B", "4B"])
def test_a_card_full_of_other_programs_is_an_error_that_says_so_and_may_be_waited_for(shape: Shape) -> None:
    with pytest.raises(EngineOutOfMemory, match=r"1\.5 of 22\.5 GiB to give: `NVIDIA A10`, other programs") as caught:
        planned(card("NVIDIA A10", (8, 6), 22.5, free_gib=1.5), shape)
    assert caught.value.hint == "`nvidia-smi` lists them; run the same command again when they have ended"


def test_a_flag_that_asks_for_more_than_other_programs_leave_can_be_left_out_instead() -> None:
    """Waiting may help too: with the card to itself the run would have the memory that it asks for."""
    asked = SGLangSettings(batch_tokens=131_072, max_tokens=512)
    with pytest.raises(EngineOutOfMemory, match="other programs use the rest") as caught:
        planned(card("NVIDIA H100", (9, 0), 80, free_gib=12), MIDDLE, asked)
    assert caught.value.hint.endswith("when they have ended, or leave `--batch-tokens` out")


@pytest.mark.parametrize(
    ("asked", "flag"),
    [(SGLangSettings(batch_tokens=100_000_000), "--batch-tokens"), (SGLangSettings(gpu_memory=2.0), "--gpu-memory")],
)
def test_a_flag_that_is_to_blame_is_named_and_nothing_else(asked: SGLangSettings, flag: str) -> None:
    with pytest.raises(EngineError) as caught:
        planned(H100, MIDDLE, asked)
    assert caught.value.hint == f"leave `{flag}` out" and type(caught.value) is EngineError


def test_the_error_of_a_card_without_bfloat16_names_its_capability() -> None:
    with pytest.raises(EngineError, match=r"capability 8\.0 or more, this one 7\.5: `Tesla T4`") as caught:
        planned(card("Tesla T4", (7, 5), 15), SMALL)
    assert caught.value.hint == "use `--engine torch`"


def test_the_longest_row_of_the_run_decides_not_the_models() -> None:
    tight = card("NVIDIA GeForce RTX 5090", (12, 0), 32, free_gib=24)
    chosen = planned(tight, LARGE, SGLangSettings(max_tokens=512))
    assert chosen.max_tokens == 512 and chosen.arguments["context_length"] == 32_769


@pytest.mark.parametrize(("asked", "bytes_"), [(0.5, 40 * GIB), (1.0, 79.5 * GIB), (12, 12 * GIB), (500, 79.5 * GIB)])
def test_gpu_memory_is_gib_or_a_share_and_never_more_than_is_free(asked: float, bytes_: float) -> None:
    assert usable_bytes(H100, SGLangSettings(gpu_memory=asked)) == pytest.approx(bytes_)


def test_less_gpu_memory_means_smaller_batches_until_even_the_smallest_does_not_fit() -> None:
    short_rows = SGLangSettings(max_tokens=512)
    sizes = [
        planned(H100, MIDDLE, replace(short_rows, gpu_memory=gib)).batch_tokens for gib in (20, 11.7, 10.5, 9.5, 9.1)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 32_768 and sizes[-1] < 16_384


def test_batch_tokens_are_taken_as_asked() -> None:
    chosen = planned(H100, SMALL, SGLangSettings(batch_tokens=5_000))
    assert chosen.batch_tokens == chosen.arguments["max_prefill_tokens"] == 5_000


def test_memory_peaks_in_the_warm_up() -> None:
    assert planned(H100, SMALL).warm_up == [(64, 512), (1, 32_768)]
    assert planned(RTX_4090, SMALL).warm_up == [(32, 512), (1, 32_768)]
    assert planned(H100, SMALL, SGLangSettings(max_tokens=100, batch_tokens=64)).warm_up == [(1, 100), (1, 100)]


def test_a_context_as_long_as_the_positions_is_made_one_longer() -> None:
    exact = replace(SMALL, positions=32_768)
    overrides = [json.loads(planned(H100, shape).arguments["json_model_override_args"]) for shape in (SMALL, exact)]
    assert overrides == [{"is_matryoshka": True}, {"is_matryoshka": True, "max_position_embeddings": 32_769}]


def test_flash_attention_can_be_given_up() -> None:
    chosen = plan(A10, MIDDLE, max_tokens=32_768, asked=SGLangSettings(), flash=False)
    assert chosen.arguments["attention_backend"] is None
    assert chosen.arguments["prefill_only_disable_kv_cache"] is False


def test_a_model_of_another_family_is_refused_and_the_hint_names_the_engine_that_runs_it() -> None:
    with pytest.raises(EngineError, match="not `bert`") as caught:
        read_shape({"model_type": "bert"})
    assert caught.value.hint == "use `--engine torch`"


def test_the_error_of_an_incomplete_config_names_the_missing_field() -> None:
    with pytest.raises(EngineError, match="num_attention_heads"):
        read_shape({"model_type": "qwen3"})


@pytest.mark.parametrize("asked", [SGLangSettings(), SGLangSettings(quantization="fp8")])
@pytest.mark.parametrize("shape", [SMALL, MIDDLE], ids=["0.6B", "4B"])
@pytest.mark.parametrize("card", [H100, H200], ids=lambda card: card.name)
def test_our_forward_pass_is_used_where_it_was_tested(card: Card, shape: Shape, asked: SGLangSettings) -> None:
    assert own_forward_problem(card, shape, asked, "0.5.23") is None


@pytest.mark.parametrize(
    ("card", "shape", "version", "said"),
    [
        (H100, SMALL, "0.5.24", "0.5.23, not 0.5.24"),
        (A100, SMALL, "0.5.23", "not tested on NVIDIA A100"),
        (B200, MIDDLE, "0.5.23", "not tested on NVIDIA B200"),
        (H100, replace(SMALL, hidden=2_048), "0.5.23", "a model of these sizes"),
        (H100, replace(SMALL, head_dim=64), "0.5.23", "a model of these sizes"),
        (H100, replace(SMALL, usual=False), "0.5.23", "a model of these sizes"),
    ],
)
def test_where_ours_was_not_tested_sglangs_forward_pass_is_used_and_the_reason_reported(
    card: Card, shape: Shape, version: str, said: str
) -> None:
    assert said in (own_forward_problem(card, shape, SGLangSettings(), version) or "")


@pytest.mark.parametrize(
    ("more", "usual"),
    [
        ({}, True),
        ({"rope_scaling": None}, True),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, True),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, False),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, False),
        ({"attention_bias": True}, False),
        ({"hidden_act": "gelu"}, False),
    ],
)
def test_a_model_with_scaled_positions_or_a_bias_is_not_usual(more: dict[str, object], usual: bool) -> None:
    assert read_shape(qwen(28, 1_024, 3_072, 16, tied=True) | more).usual is usual
