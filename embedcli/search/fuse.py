"""Two judgements of a row, its cosine and its words, made one.

In: for every candidate its cosine and its coverage (the share of BM25 that the query's words could give). Out: a score.
Not here: the candidates (searcher.py), which share a model's cosine has (models/fusing.py).

Ranks alone, as reciprocal rank fusion takes them, put what stands in both lists first: a row with the words "how" and
"my" beats the one that says the same in other words. The coverage of such a row is low, and it stays low.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

RANK_CONSTANT = 60
LEAST_COVERAGE = 0.4
"""Words count in the fusion by rank only from this coverage on; a passage of average length that has every word of the
query once has 0.45."""


def by_share(cosines: Scores, coverages: Scores, share: float) -> Scores:
    """`share` of the score is the cosine's, the rest the coverage's: for a model whose range of cosines is known."""
    return share * cosines + (1 - share) * coverages


def by_rank(cosines: Scores, coverages: Scores) -> Scores:
    """For any model: reciprocal ranks, those of the words only where the coverage is high. 1 is first in both."""
    found = 1 / (RANK_CONSTANT + _ranks(cosines))
    found += np.where(coverages >= LEAST_COVERAGE, 1 / (RANK_CONSTANT + _ranks(coverages)), 0.0)
    return found * (RANK_CONSTANT + 1) / 2


def _ranks(scores: Scores) -> Scores:
    """1 for the highest; equal scores have equal ranks, so that no order of rows decides."""
    return np.searchsorted(np.sort(-scores), -scores, side="left") + np.float64(1.0)
