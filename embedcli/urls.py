"""Places that are no paths of this machine: `s3://bucket/folder`, `gs://bucket/folder`.

In: a place as it was typed or is remembered: a path or a URL. Out: one spelling of it, and what is a bucket's.
A URL's key is taken as it stands: nothing in it is decoded, so `%20` and `#` are letters of a name.
Not here: what is in a bucket (sources/buckets/).
"""

from __future__ import annotations

import os

SCHEMES = ("s3://", "gs://")


def is_url(place: str) -> bool:
    """Whether a place is a bucket or lies in one; an absolute path begins with `/` and never is."""
    return place.startswith(SCHEMES)


def absolute(place: str) -> str:
    """The one spelling of a place: of a path the absolute one, of a folder in a bucket the one without a last `/`."""
    if not is_url(place):
        return os.path.abspath(place)
    return place[:-1] if place.endswith("/") and place not in SCHEMES else place


def real(place: str) -> str:
    """The place that a path leads to by its links; a bucket has none."""
    return place if is_url(place) else os.path.realpath(place)


def parted(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of a URL."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return scheme, bucket, key
