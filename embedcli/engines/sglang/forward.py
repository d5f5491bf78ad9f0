"""A batch of rows -> the state of each row's last token: Qwen3's forward pass without what a vector does not need.

In: the weights of a Qwen3 as SGLang has loaded them, the embedded tokens of a batch, where each row ends.
Out: float32 [rows, width], after the final norm. It differs from SGLang's own pass in four ways: the last layer
computes queries, attention and MLP for last tokens only; a layer's last matrix product also adds to the residual
stream; query and key are normalized and rotated in one kernel; in float8 each operand is quantized by the kernel that
makes it.
Not here: the kernels (kernels.py), how SGLang calls the pass (models/qwen3.py), when it is used (settings.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import linear

from embedcli.engines.sglang.kernels import (
    HEAD,
    Quantized,
    norm_and_rotate,
    quantized,
    rms_norm,
    rms_norm_quantized,
    silu_and_multiply,
    silu_quantized,
)

Tensor = torch.Tensor
Matrix = Any
"""The weights of a linear layer as their Arithmetic takes them: bfloat16 [out, in], or float8 [in, out] with its
scales, float32 [1, out]."""

Operand = Any
"""The left side of a matrix product: a tensor, or Quantized."""


@dataclass
class Stream:
    """The residual stream, [tokens, width]. `owed` is a product that the next norm has to add to it first."""

    x: Tensor
    owed: Tensor | None = None

    def at(self, places: Tensor) -> Stream:
        """The stream of the tokens at these indices only."""
        return Stream(self.x[places], None if self.owed is None else self.owed[places])


class Arithmetic(Protocol):
    """The steps that differ between bfloat16 and float8."""

    @property
    def rounded(self) -> bool:
        """Whether query and key are rounded between norm and rotation, as SGLang does."""

    def norm(self, stream: Stream, weight: Tensor, epsilon: float) -> Operand:
        """The normalized stream, as the operand of a product. Adds first what the stream owes."""

    def multiply(self, operand: Operand, matrix: Matrix) -> Tensor: ...

    def add(self, stream: Stream, operand: Operand, matrix: Matrix) -> None:
        """Add the product to the stream, or let the stream owe it."""

    def gated(self, operand: Operand, matrix: Matrix) -> Operand:
        """silu of the first half of the product, times the second half."""

    def operand(self, x: Tensor) -> Operand: ...

    def at(self, operand: Operand, places: Tensor) -> Operand: ...

    def part(self, matrix: Matrix, start: int, end: int | None) -> Matrix:
        """The weights of the outputs `start` to `end`, `end` excluded."""


class Plain:
    """Weights that are not quantized: bfloat16 on a card, elsewhere any float type."""

    rounded = False

    def norm(self, stream: Stream, weight: Tensor, epsilon: float) -> Tensor:
        return rms_norm(stream.x, weight, epsilon)

    def multiply(self, operand: Tensor, matrix: Tensor) -> Tensor:
        return linear(operand, matrix)

    def add(self, stream: Stream, operand: Tensor, matrix: Tensor) -> None:
        stream.x.addmm_(operand, matrix.t())

    def gated(self, operand: Tensor, matrix: Tensor) -> Tensor:
        return silu_and_multiply(linear(operand, matrix))

    def operand(self, x: Tensor) -> Tensor:
        return x

    def at(self, operand: Tensor, places: Tensor) -> Tensor:
        return operand[places]

    def part(self, matrix: Tensor, start: int, end: int | None) -> Tensor:
        return matrix[start:end]


@dataclass(frozen=True)
class Float8:
    """float8 weights with a scale for each output, float8 operands with a scale for each row.

    `product` multiplies them: (operand, weight, operand's scale, weight's scale) -> Tensor.
    """

    product: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    rounded: bool = True

    def norm(self, stream: Stream, weight: Tensor, epsilon: float) -> Quantized:
        operand = rms_norm_quantized(stream.x, stream.owed, weight, epsilon)
        stream.owed = None
        return operand

    def multiply(self, operand: Quantized, matrix: tuple[Tensor, Tensor]) -> Tensor:
        return self.product(operand[0], matrix[0], operand[1], matrix[1])

    def add(self, stream: Stream, operand: Quantized, matrix: tuple[Tensor, Tensor]) -> None:
        stream.owed = self.multiply(operand, matrix)

    def gated(self, operand: Quantized, matrix: tuple[Tensor, Tensor]) -> Quantized:
        return silu_quantized(self.multiply(operand, matrix))

    def operand(self, x: Tensor) -> Quantized:
        return quantized(x)

    def at(self, operand: Quantized, places: Tensor) -> Quantized:
        return operand[0][places], operand[1][places]

    def part(self, matrix: tuple[Tensor, Tensor], start: int, end: int | None) -> tuple[Tensor, Tensor]:
        return matrix[0][:, start:end], matrix[1][:, start:end]


def scaled_product(operand: Tensor, weight: Tensor, scale: Tensor, weight_scale: Tensor) -> Tensor:
    """The product for Float8 by torch, in bfloat16; on a card cuBLAS makes it."""
    product: Tensor = torch._scaled_mm(
        operand, weight, scale_a=scale, scale_b=weight_scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )
    return product


@dataclass(frozen=True)
class Layer:
    """The weights of one layer."""

    attention_norm: Tensor
    qkv: Matrix
    query_norm: Tensor
    key_norm: Tensor
    out: Matrix
    mlp_norm: Tensor
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True)
class Batch:
    """Rows laid end to end along the token axis, of at most `longest` tokens each.

    `positions` has the position of each token in its row; `starts` is int32 [rows + 1]: the index of the first token
    of each row, then the number of all tokens.
    """

    positions: Tensor
    starts: Tensor
    longest: int

    @property
    def ends(self) -> Tensor:
        """The index of the last token of each row, int64 [rows]."""
        return self.starts[1:].long() - 1


Attend = Callable[..., Any]
"""FlashAttention's function for rows of any length: q, k, v [tokens, heads, 128] -> [tokens, heads, 128]."""


@dataclass(frozen=True)
class Forward:
    """The forward pass of one model. `cos_sin` is float32 [positions, 128]: 64 cosines, then 64 sines."""

    layers: Sequence[Layer]
    final_norm: Tensor
    epsilon: float
    cos_sin: Tensor
    heads: int
    kv_heads: int
    arithmetic: Arithmetic
    attend: Attend

    def __call__(self, embedded: Tensor, batch: Batch) -> Tensor:
        """The state of each row's last token, float32 [rows, width]. Overwrites `embedded`, [tokens, width]."""
        stream = Stream(embedded)
        for layer in self.layers[:-1]:
            self._layer(stream, layer, batch)
        stream = self._last_layer(stream, self.layers[-1], batch)
        state = stream.x.float() if stream.owed is None else stream.x.float() + stream.owed.float()
        by = torch.rsqrt(state.square().mean(-1, keepdim=True) + self.epsilon)
        states: Tensor = state * by * self.final_norm.float()
        return states

    def _layer(self, stream: Stream, layer: Layer, batch: Batch) -> None:
        do, width = self.arithmetic, self.heads * HEAD
        qkv = do.multiply(do.norm(stream, layer.attention_norm, self.epsilon), layer.qkv)
        self._turn(qkv, layer, batch.positions, queries=self.heads, keys=self.kv_heads)
        mixed = self._mix(qkv[:, :width], qkv[:, width:], batch, batch.starts, batch.longest, causal=True)
        self._finish(stream, layer, mixed)

    def _last_layer(self, stream: Stream, layer: Layer, batch: Batch) -> Stream:
        """Compute keys and values of all tokens, everything else of the last tokens only. A last token attends to its
        whole row, so no causal mask is needed."""
        do, width, ends = self.arithmetic, self.heads * HEAD, batch.ends
        normed = do.norm(stream, layer.attention_norm, self.epsilon)
        kv = do.multiply(normed, do.part(layer.qkv, width, None))
        self._turn(kv, layer, batch.positions, queries=0, keys=self.kv_heads)
        query = do.multiply(do.at(normed, ends), do.part(layer.qkv, 0, width))
        self._turn(query, layer, batch.positions[ends], queries=self.heads, keys=0)
        one_query_each = torch.arange(len(batch.starts), dtype=torch.int32, device=ends.device)
        mixed = self._mix(query, kv, batch, one_query_each, 1, causal=False)
        last = stream.at(ends)
        self._finish(last, layer, mixed)
        return last

    def _turn(self, heads: Tensor, layer: Layer, positions: Tensor, *, queries: int, keys: int) -> None:
        norms = (layer.query_norm, layer.key_norm)
        norm_and_rotate(
            heads, *norms, self.cos_sin, positions, self.epsilon, queries=queries, keys=keys,
            rounded=self.arithmetic.rounded,
        )  # fmt: skip

    def _mix(
        self, query: Tensor, kv: Tensor, batch: Batch, query_starts: Tensor, query_longest: int, *, causal: bool
    ) -> Tensor:
        tokens, width = query.shape[0], self.kv_heads * HEAD
        mixed = self.attend(
            q=query.view(tokens, self.heads, HEAD),
            k=kv[:, :width].view(-1, self.kv_heads, HEAD),
            v=kv[:, width:].view(-1, self.kv_heads, HEAD),
            cu_seqlens_q=query_starts,
            cu_seqlens_k=batch.starts,
            max_seqlen_q=query_longest,
            max_seqlen_k=batch.longest,
            softmax_scale=HEAD**-0.5,
            causal=causal,
        )
        states: Tensor = mixed[0] if isinstance(mixed, tuple) else mixed
        return states.reshape(tokens, -1)

    def _finish(self, stream: Stream, layer: Layer, mixed: Tensor) -> None:
        do = self.arithmetic
        do.add(stream, do.operand(mixed), layer.out)
        inner = do.gated(do.norm(stream, layer.mlp_norm, self.epsilon), layer.gate_up)
        do.add(stream, inner, layer.down)
