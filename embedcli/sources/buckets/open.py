"""A URL -> the bucket that it lies in.

In: `s3://bucket/key` or `gs://bucket/key`. Out: a Bucket, one a process, and the key. Nothing is asked of it yet.
Not here: the buckets (s3.py, gs.py).
"""

from __future__ import annotations

import os
from functools import lru_cache

from embedcli.sources.buckets.contract import ENDPOINTS, REGIONS, Bucket
from embedcli.urls import parted


def bucket_of(url: str) -> tuple[Bucket, str]:
    """The bucket, and the key in it. Raises BucketError where the extra `s3` is needed and missing."""
    scheme, bucket, key = parted(url)
    return _opened(scheme, bucket, *(os.environ.get(name, "") for name in (*ENDPOINTS, *REGIONS))), key


@lru_cache(maxsize=64)
def _opened(scheme: str, bucket: str, *_environment: str) -> Bucket:
    """Another environment makes another bucket."""
    if scheme == "s3":
        from embedcli.sources.buckets.s3 import S3

        return S3(bucket)
    from embedcli.sources.buckets.gs import google_bucket

    return google_bucket(bucket)
