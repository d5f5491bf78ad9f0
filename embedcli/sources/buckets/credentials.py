"""Credentials for S3 from where the provider's own tools look for them, but for their files of profiles.

In: the environment: AWS_ACCESS_KEY_ID and its secret; else the role of a pod (AWS_WEB_IDENTITY_TOKEN_FILE), of a
container (AWS_CONTAINER_CREDENTIALS_*) or of the machine (its metadata service). Out: Keys, new ones a while before
they expire; None where AWS_SKIP_SIGNATURE says that the bucket is public.
Not here: signing (signing.py).
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from embedcli.errors import BucketError
from embedcli.sources.buckets.contract import REGIONS
from embedcli.sources.buckets.signing import Keys

DEFAULT_REGION = "us-east-1"
RENEW_BEFORE_S = 300.0
ANSWER_WITHIN_S = 2.0
"""The services for credentials are on this machine or near it."""
CONTAINERS = "http://169.254.170.2"
METADATA = "http://169.254.169.254"
_ROLES = "/latest/meta-data/iam/security-credentials/"
_TRUE = ("1", "true", "yes", "on")

Environment = Mapping[str, str]


def region_of(given: Environment) -> str:
    """The region that is asked first."""
    return next((given[name] for name in REGIONS if given.get(name)), DEFAULT_REGION)


class Credentials:
    """The keys of one process, as they are now."""

    def __init__(self, environment: Environment = os.environ, *, clock: Callable[[], float] = time.time) -> None:
        self._environment = environment
        self._clock = clock
        self._keys: Keys | None = None
        self._until = 0.0

    def now(self) -> Keys | None:
        """Raises BucketError (`permission`) where there are none."""
        given = self._environment
        if given.get("AWS_SKIP_SIGNATURE", "").lower() in _TRUE:
            return None
        if given.get("AWS_ACCESS_KEY_ID"):
            secret = given.get("AWS_SECRET_ACCESS_KEY", "")
            return Keys(given["AWS_ACCESS_KEY_ID"], secret, given.get("AWS_SESSION_TOKEN", ""))
        if self._keys is None or self._clock() > self._until - RENEW_BEFORE_S:
            self._keys, self._until = _of_a_role(given)
        return self._keys


def _of_a_role(given: Environment) -> tuple[Keys, float]:
    """The keys of a role, and when they expire."""
    try:
        if given.get("AWS_WEB_IDENTITY_TOKEN_FILE") and given.get("AWS_ROLE_ARN"):
            return _of_a_pod(given)
        if given.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or given.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            return _of_a_container(given)
        return _of_the_machine(given)
    except (OSError, ValueError, KeyError) as error:
        raise BucketError(
            "permission", "there are no credentials: export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error


def _of_a_pod(given: Environment) -> tuple[Keys, float]:
    service = given.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region_of(given)}.amazonaws.com"
    asked = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": given["AWS_ROLE_ARN"],
        "RoleSessionName": given.get("AWS_ROLE_SESSION_NAME") or "embedcli",
        "WebIdentityToken": Path(given["AWS_WEB_IDENTITY_TOKEN_FILE"]).read_text().strip(),
    }
    answer = _answer(f"{service}/?{urlencode(asked)}", {}, within_s=10.0, proxied=True)
    found = dict(re.findall(r"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration)>([^<]*)<", answer))
    return Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]), _time(found["Expiration"])


def _of_a_container(given: Environment) -> tuple[Keys, float]:
    relative = given.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    token = given.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if given.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        token = Path(given["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read_text().strip()
    url = f"{CONTAINERS}{relative}" if relative else given["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    return _keys_in(_answer(url, {"Authorization": token} if token else {}))


def _of_the_machine(given: Environment) -> tuple[Keys, float]:
    service = (given.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or METADATA).rstrip("/")
    if given.get("AWS_EC2_METADATA_DISABLED", "").lower() in _TRUE:
        raise KeyError("AWS_ACCESS_KEY_ID")
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
    token = {"X-aws-ec2-metadata-token": _answer(f"{service}/latest/api/token", lifetime, method="PUT")}
    role = _answer(f"{service}{_ROLES}", token).split()[0]
    return _keys_in(_answer(f"{service}{_ROLES}{role}", token))


def _answer(
    url: str, headers: Mapping[str, str], *, method: str = "GET", within_s: float = ANSWER_WITHIN_S,
    proxied: bool = False,
) -> str:  # fmt: skip
    """What a service says. One on this machine or near it is no proxy's business."""
    opener = build_opener() if proxied else build_opener(ProxyHandler({}))
    with opener.open(Request(url, headers=dict(headers), method=method), timeout=within_s) as response:
        text: str = response.read().decode()
    return text


def _keys_in(answer: str) -> tuple[Keys, float]:
    found = json.loads(answer)
    return Keys(found["AccessKeyId"], found["SecretAccessKey"], found.get("Token", "")), _time(found["Expiration"])


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
