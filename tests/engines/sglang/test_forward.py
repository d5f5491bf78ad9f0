"""Our forward pass is Qwen3's: the same states as transformers computes, in float32.

In: a tiny model with random weights, rows of several lengths. Out: the last tokens' states, side by side. The kernels
run on a card where there is one, else in Triton's interpreter, which is slow, and rounds some float8 wrongly.
Not here: bfloat16, speed, SGLang's classes: those need a card (bench_card.py).
"""

from __future__ import annotations

import itertools
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed; .ci/sglang has it")

if find_spec("triton") is not None:
    import torch

    DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    if DEVICE == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined, and at its first run
    from embedcli.engines.sglang import forward, kernels

    os.environ.pop("TRITON_INTERPRET", None)

HEADS, KV_HEADS, WIDTH, INNER, LAYERS = 4, 2, 96, 160, 3
EPSILON, BASE = 1e-6, 1_000_000.0
LENGTHS = (1, 2, 17, 5, 40)
FLOAT8_ERROR = 1 / 16 if find_spec("triton") is not None and DEVICE == "cuda" else 1 / 6
"""The largest error of float8, as a share of the largest number of a row."""


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":  # for these tests only: a host that others start would inherit it
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def transformers_model() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=kernels.HEAD,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": BASE},
    )
    model = Qwen3Model(config).float().eval()
    for name, weight in model.named_parameters():
        scale = 0.2 if weight.dim() == 1 else weight.shape[-1] ** -0.5
        weight.data = torch.randn_like(weight) * scale + (1.0 if "norm" in name else 0.0)
    return model.to(DEVICE)


def attend(
    q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int, max_seqlen_k: int,
    softmax_scale: float, causal: bool,
) -> Any:  # fmt: skip
    """What FlashAttention's function for rows of any length computes, row by row."""
    out = []
    for row in range(len(cu_seqlens_q) - 1):
        asked = q[cu_seqlens_q[row] : cu_seqlens_q[row + 1]].transpose(0, 1)
        keys, values = (x[cu_seqlens_k[row] : cu_seqlens_k[row + 1]].transpose(0, 1) for x in (k, v))
        assert asked.shape[1] <= max_seqlen_q and keys.shape[1] <= max_seqlen_k
        mixed = torch.nn.functional.scaled_dot_product_attention(
            asked[None], keys[None], values[None], is_causal=causal, scale=softmax_scale, enable_gqa=True
        )
        out.append(mixed[0].transpose(0, 1))
    return torch.cat(out)


def our_pass(model: Any, arithmetic: Any, matrix: Any) -> Any:
    def layer(of: Any) -> forward.Layer:
        attention, mlp = of.self_attn, of.mlp
        qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        return forward.Layer(
            attention_norm=of.input_layernorm.weight,
            qkv=matrix(qkv),
            query_norm=attention.q_norm.weight,
            key_norm=attention.k_norm.weight,
            out=matrix(attention.o_proj.weight),
            mlp_norm=of.post_attention_layernorm.weight,
            gate_up=matrix(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])),
            down=matrix(mlp.down_proj.weight),
        )

    turns = torch.arange(64)[:, None] * BASE ** -(torch.arange(0, kernels.HEAD, 2) / kernels.HEAD)
    return forward.Forward(
        layers=[layer(one) for one in model.layers],
        final_norm=model.norm.weight,
        epsilon=EPSILON,
        cos_sin=torch.cat([turns.cos(), turns.sin()], 1).to(DEVICE),
        heads=HEADS,
        kv_heads=KV_HEADS,
        arithmetic=arithmetic,
        attend=attend,
    )


def states(model: Any, ours: Any, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(the states of our pass, all rows in one batch; those of transformers, each row alone)."""
    rows = [torch.randint(0, 300, (length,), device=DEVICE) for length in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths]).to(DEVICE)
    starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=DEVICE)
    batch = forward.Batch(positions, starts, max(lengths))
    with torch.no_grad():
        found = ours(model.embed_tokens(torch.cat(rows)), batch)
        wanted = [model(input_ids=row[None]).last_hidden_state[0, -1] for row in rows]
    return found.cpu().numpy(), torch.stack(wanted).cpu().numpy()


@pytest.mark.parametrize("lengths", [LENGTHS, (40,), (1,), (1, 1, 1)])
def test_the_states_of_last_tokens_are_those_of_transformers(lengths: tuple[int, ...]) -> None:
    model = transformers_model()
    found, wanted = states(model, our_pass(model, forward.Plain(), lambda weight: weight), lengths)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_a_model_of_a_single_layer_gives_the_states_of_transformers() -> None:
    model = transformers_model()
    model.layers = model.layers[:1]
    found, wanted = states(model, our_pass(model, forward.Plain(), lambda weight: weight), LENGTHS)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def by_channel(weight: Any) -> tuple[Any, Any]:
    """Weights as SGLang quantizes them: a scale for each output."""
    scale = weight.abs().amax(1, keepdim=True) / kernels.FLOAT8_MOST
    return (weight / scale).to(torch.float8_e4m3fn).t(), scale.t()


def product(operand: Any, weight: Any, scale: Any, weight_scale: Any) -> Any:
    assert scale.shape == (operand.shape[0], 1) and weight_scale.shape == (1, weight.shape[1])
    return (operand.float() @ weight.float()) * scale * weight_scale


def test_in_float8_the_states_are_near_and_every_owed_product_is_added() -> None:
    """A product that was never added would change the state far more than float8 does."""
    model = transformers_model()
    found, wanted = states(model, our_pass(model, forward.Float8(product), by_channel), LENGTHS)
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > (0.9 if DEVICE == "cpu" else 0.97)


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_torch_multiplies_float8_as_we_do_in_float32(rows: int) -> None:
    """One row too: the last layer has as many as the batch has. And a part of the weights, as the last layer takes."""
    operand, weight = torch.randn(rows, 64, device=DEVICE), by_channel(torch.randn(48, 64, device=DEVICE))
    quantized = kernels.quantized(operand)
    whole = forward.Float8(forward.scaled_product)
    for matrix in (weight, whole.part(weight, 16, None), whole.part(weight, 0, 16)):
        found, wanted = whole.multiply(quantized, matrix), product(quantized[0], matrix[0], quantized[1], matrix[1])
        assert found.dtype == torch.bfloat16
        assert (found.float() - wanted).abs().max() <= 0.01 * wanted.abs().max()


def test_a_row_in_float8_times_its_scale_is_the_row() -> None:
    x = (torch.randn(7, 200) * torch.logspace(-6, 6, 7)[:, None]).to(DEVICE)
    x[3] = 0
    values, scale = kernels.quantized(x)
    error = (values.float() * scale - x).abs().amax(1)
    assert values.dtype == torch.float8_e4m3fn and (error <= x.abs().amax(1) * FLOAT8_ERROR).all()


def test_silu_takes_any_width() -> None:
    for width in (1, 160, 2_049, 3_072):
        gate_up = torch.randn(3, 2 * width, device=DEVICE)
        wanted = torch.nn.functional.silu(gate_up[:, :width]) * gate_up[:, width:]
        torch.testing.assert_close(kernels.silu_and_multiply(gate_up), wanted)
        values, scale = kernels.silu_quantized(gate_up)
        torch.testing.assert_close(
            values.float() * scale, wanted, atol=float(wanted.abs().max()) * FLOAT8_ERROR, rtol=0
        )


def nearly_all(same: Any) -> bool:
    """The last bit of a float32 may decide how a number is rounded."""
    return bool(same.float().mean() > 0.95)


def test_values_on_their_way_to_float8_are_rounded_where_sglang_rounds() -> None:
    """SGLang's norm and silu round their results, and the scale is that of the rounded numbers. The test uses half
    precision, because Triton's interpreter truncates bfloat16 where a card rounds."""
    x, owed, weight = (torch.randn(64, 160, device=DEVICE).half() for _ in range(3))
    total = x.float() + owed.float()
    by = torch.rsqrt(total.square().mean(1, keepdim=True) + EPSILON)
    wanted = (total * by * weight[0].float()).half().float().abs().amax(1, keepdim=True) / kernels.FLOAT8_MOST
    _, scale = kernels.rms_norm_quantized(x, owed, weight[0], EPSILON)
    assert nearly_all(torch.isclose(scale, wanted, rtol=1e-5, atol=0))
    assert torch.equal(x, total.half()), "the owed product is added"
    gate, up = x.float().chunk(2, 1)
    wanted = (torch.nn.functional.silu(gate) * up).half().float().abs().amax(1, keepdim=True) / kernels.FLOAT8_MOST
    _, scale = kernels.silu_quantized(x)
    assert nearly_all(torch.isclose(scale, wanted, rtol=1e-5, atol=0))


@pytest.mark.parametrize("rounded", [True, False])
def test_a_query_is_rounded_before_its_rotation_if_asked(rounded: bool) -> None:
    heads, weight = torch.randn(9, 4 * kernels.HEAD, device=DEVICE).half(), torch.randn(kernels.HEAD, device=DEVICE)
    angles = torch.arange(9, device=DEVICE)[:, None] * torch.rand(64, device=DEVICE)
    cos_sin, by_head = torch.cat([angles.cos(), angles.sin()], 1), heads.float().view(9, 4, -1)
    normed = by_head * torch.rsqrt(by_head.square().mean(-1, keepdim=True) + EPSILON) * weight
    normed = normed.half().float() if rounded else normed
    (first, second), cosine, sine = normed.chunk(2, -1), angles.cos()[:, None], angles.sin()[:, None]
    wanted = torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).half().view(9, -1)
    kernels.norm_and_rotate(
        heads, weight, weight, cos_sin, torch.arange(9, device=DEVICE), EPSILON, queries=4, keys=0, rounded=rounded
    )
    assert nearly_all(heads == wanted)


def test_a_batch_without_tokens_gives_empty_results() -> None:
    nothing = torch.empty(0, 2 * INNER, device=DEVICE)
    assert kernels.silu_and_multiply(nothing).shape == (0, INNER)
    assert kernels.rms_norm(nothing, torch.ones(2 * INNER, device=DEVICE), EPSILON).shape == nothing.shape


def test_the_package_that_sglang_searches_has_exactly_one_model_class() -> None:
    folder = Path(forward.__file__).parent / "models"
    assert sorted(path.name for path in folder.glob("*.py")) == ["__init__.py", "qwen3.py"]
