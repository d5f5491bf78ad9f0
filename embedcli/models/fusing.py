"""How much of a hybrid score is the cosine's, by model: measured, since each model has a range of cosines of its own.

In: the digest of a model's weights. Out: the share, or None where nobody has measured it.
Not here: the fusion (search/fuse.py); `tests/bench_search.py` prints what a share is worth.
"""

from __future__ import annotations

from embedcli.models.folder import MINILM_WEIGHTS

_SHARES = {MINILM_WEIGHTS: 0.6}


def cosine_share(weights_digest: str) -> float | None:
    return _SHARES.get(weights_digest)
