"""Signatures are those that another implementation makes, whatever the key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcli.sources.buckets.signing import Keys, path_of, query_of, signed

NOW = datetime(2013, 5, 24, tzinfo=UTC)
EXAMPLE = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def test_the_example_of_the_providers_own_page() -> None:
    """`GET ?max-keys=2&prefix=J`, from "Examples: Signature Calculations"."""
    query = query_of({"max-keys": "2", "prefix": "J"})
    headers = signed("GET", "examplebucket.s3.amazonaws.com", "/", query, keys=EXAMPLE, region="us-east-1", now=NOW)
    assert headers["authorization"].endswith(
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


@given(
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    prefix=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    token=st.sampled_from(["", "a session"]),
)
def test_every_key_is_signed_as_by_botocore(key: str, prefix: str, token: str) -> None:
    awsrequest = pytest.importorskip("botocore.awsrequest")
    from botocore.auth import S3SigV4Auth
    from botocore.credentials import Credentials

    path, query = path_of("bucket", key), query_of({"prefix": prefix, "list-type": "2"})
    request = awsrequest.AWSRequest("GET", f"https://host.example:9000{path}?{query}", {"x-amz-more": "1"})
    request.context["timestamp"] = "20130524T000000Z"

    class Fixed(S3SigV4Auth):  # type: ignore[misc]
        """Signs at NOW: botocore asks the clock."""

        def add_auth(self, request: object) -> None:
            self._modify_request_before_signing(request)
            text = self.canonical_request(request)
            signature = self.signature(self.string_to_sign(request, text), request)
            self._inject_signature_to_request(request, signature)

        def _set_necessary_date_headers(self, request: object) -> None:
            request.headers["X-Amz-Date"] = request.context["timestamp"]  # type: ignore[attr-defined]

    request.headers["X-Amz-Content-SHA256"] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    Fixed(Credentials("access", "secret", token or None), "s3", "eu-west-1").add_auth(request)
    ours = signed(
        "GET", "host.example:9000", path, query, keys=Keys("access", "secret", token), region="eu-west-1", now=NOW,
        more={"x-amz-more": "1"},
    )  # fmt: skip
    assert ours["authorization"] == request.headers["Authorization"]


def test_no_slash_of_a_key_is_added_or_lost() -> None:
    keys = ("a", "a/", "/a", "a//b", "a/../b", "a b", "a+b", "a%20b", "a%FF", "a#b", "a?b", "é", "A")
    paths = [path_of("bucket", key) for key in keys]
    assert paths[:6] == ["/bucket/a", "/bucket/a/", "/bucket//a", "/bucket/a//b", "/bucket/a/../b", "/bucket/a%20b"]
    assert len(set(paths)) == len(keys)
