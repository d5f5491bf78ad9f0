"""The Triton kernels of our forward pass: each does in one pass over memory what SGLang does in several.

In: tensors of one card, rows of tokens, the last axis contiguous. Out: new tensors, or the tensors given, changed in
place, where a docstring says so. Sums are float32. Values are not rounded between two steps of one kernel, except in
kernels that make float8: these round where SGLang rounds, because float8 magnifies small differences.
Not here: matrix products and attention, for which forward.py calls other libraries.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

HEAD = 128
"""Components of a head. The kernels know the number: 128, and 64 for each of the two halves that rotate together."""

FLOAT8_MOST = 448.0
"""The largest number of float8_e4m3fn."""

_FLOAT8_MOST = tl.constexpr(FLOAT8_MOST)
_LEAST_SCALE = tl.constexpr(1e-10)
"""For kernels, which can read a global only as tl.constexpr. The least scale keeps a row of zeros from 0 / 0."""

Quantized = tuple[torch.Tensor, torch.Tensor]
"""(float8 [rows, columns], a scale for each row as float32 [rows, 1]): the values are their product."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Each row divided by its root mean square, times the weight."""
    out = torch.empty_like(x)
    _launch_norm(x, x, weight, out, out, epsilon, add=False, quantize=False)
    return out


def rms_norm_quantized(x: torch.Tensor, owed: torch.Tensor | None, weight: torch.Tensor, epsilon: float) -> Quantized:
    """The rms_norm of `x` in float8, each row with its scale. First adds `owed`, if there is any, to `x` in place."""
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty((x.shape[0], 1), dtype=torch.float32, device=x.device)
    _launch_norm(x, x if owed is None else owed, weight, out, scale, epsilon, add=owed is not None, quantize=True)
    return out, scale


def norm_and_rotate(
    heads: torch.Tensor,
    query_weight: torch.Tensor,
    key_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    positions: torch.Tensor,
    epsilon: float,
    *,
    queries: int,
    keys: int,
    rounded: bool = False,
) -> None:
    """Change query and key heads in place: divide each by its root mean square, multiply it by its weight, rotate it by
    its position.

    `heads` is [rows, columns]: 128 columns for each of the `queries` query heads, then of the `keys` key heads,
    then any others, which are not touched. `queries` or `keys` may be 0. `cos_sin` is float32 [positions, 128],
    64 cosines and 64 sines. `rounded`: round to the type of `heads` between norm and rotation too.
    """
    if heads.shape[0]:
        warps = 4 if queries + keys > 8 else 1
        stride = heads.stride(0)
        _norm_and_rotate[(heads.shape[0],)](
            heads, query_weight, key_weight, cos_sin, positions, stride, epsilon, queries, keys, rounded,
            num_warps=warps,
        )  # fmt: skip


def silu_and_multiply(gate_up: torch.Tensor) -> torch.Tensor:
    """silu of the first half of each row, times its second half."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        block = min(2_048, triton.next_power_of_2(width))
        _silu[(rows, triton.cdiv(width, block))](gate_up, out, width, block, num_warps=8)
    return out


def silu_quantized(gate_up: torch.Tensor) -> Quantized:
    """silu_and_multiply in float8, each row with its scale."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    return _quantized(_silu_quantized, gate_up, rows, width)


def quantized(x: torch.Tensor) -> Quantized:
    """Rows in float8, each with its scale."""
    return _quantized(_quantize, x, *x.shape)


def _quantized(kernel: Any, x: torch.Tensor, rows: int, width: int) -> Quantized:
    out = torch.empty((rows, width), dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    if rows:
        block = triton.next_power_of_2(width)
        kernel[(rows,)](x, out, scale, width, block, num_warps=min(8, max(4, block // 512)))
    return out, scale


def _launch_norm(
    x: torch.Tensor,
    owed: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    scale: torch.Tensor,
    epsilon: float,
    *,
    add: bool,
    quantize: bool,
) -> None:
    rows, width = x.shape
    if rows:
        block = triton.next_power_of_2(width)
        each = max(1, 4_096 // block)  # rows for each program: enough loads in flight to hide their latency
        warps = 8 if each > 1 else 4
        _norm[(triton.cdiv(rows, each),)](
            x, owed, weight, out, scale, rows, epsilon, width, block, each, add, quantize, num_warps=warps
        )


@triton.jit
def _store_quantized(OUT, SCALE, row, value, columns, inside, width):
    scale = tl.maximum(tl.max(tl.abs(value), 0) / _FLOAT8_MOST, _LEAST_SCALE)
    tl.store(SCALE + row, scale)
    tl.store(OUT + row * width + columns, (value / scale).to(OUT.dtype.element_ty), inside)


@triton.jit
def _norm(
    X, OWED, WEIGHT, OUT, SCALE, rows, epsilon,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr, EACH: tl.constexpr, ADD: tl.constexpr, QUANTIZE: tl.constexpr,
):  # fmt: skip
    # 64 bits: rows times columns can exceed 32
    row = tl.program_id(0).to(tl.int64) * EACH + tl.arange(0, EACH)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < WIDTH)
    place = row * WIDTH + column
    value = tl.load(X + place, inside, 0.0).to(tl.float32)
    if ADD:
        value += tl.load(OWED + place, inside, 0.0).to(tl.float32)
        tl.store(X + place, value.to(X.dtype.element_ty), inside)
    weight = tl.load(WEIGHT + column, column < WIDTH, 0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, 1) / WIDTH + epsilon)[:, None] * weight
    if QUANTIZE:
        value = value.to(X.dtype.element_ty).to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(value), 1) / _FLOAT8_MOST, _LEAST_SCALE)[:, None]
        tl.store(SCALE + row, scale, row < rows)
        tl.store(OUT + place, (value / scale).to(OUT.dtype.element_ty), inside)
    else:
        tl.store(OUT + place, value.to(OUT.dtype.element_ty), inside)


@triton.jit
def _turn(PLACE, WEIGHT, cosine, sine, half, epsilon, ROUNDED: tl.constexpr):
    first = tl.load(PLACE).to(tl.float32)
    second = tl.load(PLACE + 64).to(tl.float32)
    by = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / 128 + epsilon)[:, None]
    first = first * by * tl.load(WEIGHT + half).to(tl.float32)[None, :]
    second = second * by * tl.load(WEIGHT + 64 + half).to(tl.float32)[None, :]
    if ROUNDED:
        first = first.to(PLACE.dtype.element_ty).to(tl.float32)
        second = second.to(PLACE.dtype.element_ty).to(tl.float32)
    tl.store(PLACE, (first * cosine - second * sine).to(PLACE.dtype.element_ty))
    tl.store(PLACE + 64, (second * cosine + first * sine).to(PLACE.dtype.element_ty))


@triton.jit
def _norm_and_rotate(
    HEADS, QUERY, KEY, COS_SIN, POSITIONS, stride, epsilon,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    position = tl.load(POSITIONS + row).to(tl.int64)
    half = tl.arange(0, 64)
    cosine = tl.load(COS_SIN + position * 128 + half).to(tl.float32)[None, :]
    sine = tl.load(COS_SIN + position * 128 + 64 + half).to(tl.float32)[None, :]
    start = HEADS + row * stride + half[None, :]
    if QUERIES > 0:
        _turn(start + tl.arange(0, QUERIES)[:, None] * 128, QUERY, cosine, sine, half, epsilon, ROUNDED)
    if KEYS > 0:
        _turn(start + (QUERIES + tl.arange(0, KEYS)[:, None]) * 128, KEY, cosine, sine, half, epsilon, ROUNDED)


@triton.jit
def _silu_of(GATE_UP, row, columns, inside, width):
    place = GATE_UP + row * 2 * width + columns
    gate = tl.load(place, inside, 0.0).to(tl.float32)
    return gate * tl.sigmoid(gate) * tl.load(place + width, inside, 0.0).to(tl.float32)


@triton.jit
def _silu(GATE_UP, OUT, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < WIDTH
    value = _silu_of(GATE_UP, row, columns, inside, WIDTH)
    tl.store(OUT + row * WIDTH + columns, value.to(OUT.dtype.element_ty), inside)


@triton.jit
def _silu_quantized(GATE_UP, OUT, SCALE, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    value = _silu_of(GATE_UP, row, columns, inside, WIDTH).to(GATE_UP.dtype.element_ty).to(tl.float32)
    _store_quantized(OUT, SCALE, row, value, columns, inside, WIDTH)


@triton.jit
def _quantize(X, OUT, SCALE, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    value = tl.load(X + row * WIDTH + columns, inside, 0.0).to(tl.float32)
    _store_quantized(OUT, SCALE, row, value, columns, inside, WIDTH)
