"""What counts as the vectors of one model, at every number of dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from embedcli.engines.probe import compare_probe, least_agreement
from tests.fake_engines import unit

FORWARD_PASSES_OF_FP8 = 0.9955
"""The cosine of two correct forward passes, as the most distant texts had it on a card, of all dimensions."""


@pytest.mark.parametrize("dim", [32, 64, 128, 256, 2_560])
def test_correct_vectors_of_8_bits_agree_and_those_of_other_texts_do_not(dim: int) -> None:
    """Ten thousand texts, each with an error of the size that fp8 makes: with few dimensions some lose far more."""
    source = np.random.default_rng(dim)
    vectors = source.standard_normal((10_000, dim))
    error = source.standard_normal((10_000, dim)) * np.sqrt(2 * (1 - FORWARD_PASSES_OF_FP8))
    least = least_agreement("fp8", dim)
    assert compare_probe(unit(vectors), unit(vectors + error)) >= least
    assert least >= 0.95 > (unit(vectors) * np.roll(unit(vectors), 1, axis=0)).sum(axis=1).max()


def test_a_bound_of_16_bits_is_the_same_at_every_number_of_dimensions() -> None:
    assert {least_agreement(precision, dim) for precision in (None, "bfloat16") for dim in (32, 2_560)} == {0.999}
