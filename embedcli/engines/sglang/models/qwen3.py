"""SGLang's Qwen3 class with our forward pass.

In: what SGLang's scheduler passes to a model. Out: unit vectors, float32, one for each row, cut to the dimension that
the requests ask for. Weights, their loading and quantization are those of SGLang's own class; where one of them is of a
kind that our pass does not support, the warm-up fails, and sglang/engine.py starts SGLang again with its own pass.
Not here: the pass (sglang/forward.py), for which machines it is chosen (sglang/settings.py).
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.layers.pooler import EmbeddingPoolerOutput
from sglang.srt.layers.quantization.fp8 import Fp8LinearMethod
from sglang.srt.layers.quantization.unquant import UnquantizedLinearMethod
from sglang.srt.layers.rotary_embedding import RotaryEmbedding
from sglang.srt.model_executor.forward_context import get_attn_backend
from sglang.srt.models import qwen3

from embedcli.engines.sglang.forward import (
    Arithmetic,
    Batch,
    Float8,
    Forward,
    Layer,
    Matrix,
    Plain,
    scaled_product,
)
from embedcli.engines.sglang.kernels import HEAD

CUBLAS_WIDTH = 2_560
"""From this width on torch multiplies float8, with cuBLAS, and below it SGLang's kernel. On an H200 the four products
of a layer of 4B take 2.58 instead of 2.82 ms for 16,384 tokens; at the width of 0.6B both take 0.47 ms."""


class Qwen3ForCausalLM(qwen3.Qwen3ForCausalLM):  # type: ignore[misc]  # untyped
    """SGLang finds it by this name."""

    _ours: Forward | None = None

    @torch.no_grad()
    def forward(
        self, input_ids: Any, positions: Any, forward_batch: Any, input_embeds: Any = None, get_embedding: bool = False,
        pp_proxy_tensors: Any = None,
    ) -> Any:  # fmt: skip
        backend = get_attn_backend()
        if self._ours is None:
            self._ours = forward_of(self, backend)
        if not get_embedding or input_embeds is not None or pp_proxy_tensors is not None:
            raise ValueError("our forward pass turns token ids into vectors, and can do nothing else")
        spans = backend.forward_metadata
        batch = Batch(positions, spans.cu_seqlens_q, int(spans.max_seq_len_q))
        states = self._ours(self.model.embed_tokens(input_ids), batch)
        (width,) = set(forward_batch.dimensions or [states.shape[1]])
        return EmbeddingPoolerOutput(embeddings=torch.nn.functional.normalize(states[:, :width], dim=-1))


def forward_of(model: Any, backend: Any) -> Forward:
    """Our pass over the weights of SGLang's model, as they are after loading. Raises ValueError if the model has
    something that our pass does not support."""
    first = model.model.layers[0].self_attn
    needed = {
        "attention without a cache of keys and values": backend.fa_skip_kv_cache,
        "heads of 128": first.head_dim == HEAD,
        "plain rotary positions": type(first.rotary_emb) is RotaryEmbedding and first.rotary_emb.is_neox_style,
        "the same epsilon everywhere": first.q_norm.variance_epsilon == model.model.norm.variance_epsilon,
        "no bias": first.qkv_proj.bias is None and first.o_proj.bias is None,
    }
    if missing := [name for name, fulfilled in needed.items() if not fulfilled]:
        raise ValueError(f"our forward pass needs: {', '.join(missing)}")
    return Forward(
        layers=[_layer(layer) for layer in model.model.layers],
        final_norm=model.model.norm.weight,
        epsilon=model.model.norm.variance_epsilon,
        cos_sin=first.rotary_emb.cos_sin_cache,
        heads=first.num_heads,
        kv_heads=first.num_kv_heads,
        arithmetic=_arithmetic(first.qkv_proj),
        attend=backend.flash_attn_varlen_func,
    )


def _layer(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        attention_norm=layer.input_layernorm.weight,
        qkv=_matrix(attention.qkv_proj),
        query_norm=attention.q_norm.weight,
        key_norm=attention.k_norm.weight,
        out=_matrix(attention.o_proj),
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=_matrix(mlp.gate_up_proj),
        down=_matrix(mlp.down_proj),
    )


def _is_plain(projection: Any) -> bool:
    """True for bfloat16 weights, False for float8 with a scale for each output. Raises ValueError for all others."""
    method, weight = projection.quant_method, projection.weight
    if isinstance(method, UnquantizedLinearMethod) and weight.dtype == torch.bfloat16:
        return True
    if (
        isinstance(method, Fp8LinearMethod)
        and not (method.block_quant or method.use_marlin or method.use_mxfp8)
        and weight.dtype == torch.float8_e4m3fn
        and projection.weight_scale.numel() == weight.shape[1]
    ):
        return False
    raise ValueError(f"our forward pass does not support weights of {type(method).__name__}, {weight.dtype}")


def _matrix(projection: Any) -> Matrix:
    return projection.weight if _is_plain(projection) else (projection.weight, projection.weight_scale.view(1, -1))


def _arithmetic(projection: Any) -> Arithmetic:
    if _is_plain(projection):
        return Plain()
    return Float8(scaled_product if projection.weight.shape[0] >= CUBLAS_WIDTH else _by_sglang)


def _by_sglang(operand: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, weight_scale: torch.Tensor) -> Any:
    from sgl_kernel import fp8_scaled_mm

    return fp8_scaled_mm(operand, weight, scale, weight_scale, out_dtype=torch.bfloat16)


EntryClass = Qwen3ForCausalLM
