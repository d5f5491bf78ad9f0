"""A bucket of a real S3 server, as somebody else fills it and as embedcli meets it.

In: the server (s3.py). Out: an empty bucket for each test, the environment that reaches it, and a Front between the two
that remembers what was asked and answers in the server's place where a test says so.
Not here: any expectation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.s3 import S3, Proxy, Request, proxied

Refusal = tuple[int, bytes] | None


def error_body(code: str, message: str = "so it is") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()


def nothing(method: str, path: str) -> None:
    return


@dataclass
class Front:
    """`asked` holds (method, path with query, Range, If-Match); what `instead` returns for a method and a path is the
    answer; `before` is called first."""

    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    instead: Callable[[str, str], Refusal] = nothing
    before: Callable[[str, str], None] = nothing
    address: str = ""

    def answer(self, request: Request) -> Refusal:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.method, request.path, headers.get("range", ""), headers.get("if-match", "")))
        self.before(request.method, request.path)
        return self.instead(request.method, request.path)

    def objects(self) -> list[str]:
        """The paths of the objects whose bytes were asked for."""
        return [path for method, path, _, _ in self.asked if method == "GET" and "list-type=" not in path]

    def listings(self) -> list[str]:
        return [path for _, path, _, _ in self.asked if "list-type=" in path]


class S3Bucket:
    """A bucket, written by another client than ours; `front` is what embedcli talks to."""

    def __init__(self, client: Any, url: str, front: Front) -> None:
        self.client = client
        self.front = front
        self.url = url
        self.name = url.removeprefix("s3://")

    def put(self, key: str, data: str | bytes, **more: Any) -> None:
        body = data.encode() if isinstance(data, str) else data
        self.client.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def put_folder(self, folder: Path, prefix: str) -> None:
        """Every file below a folder, as `aws s3 sync` would."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}{path.relative_to(folder)}", path.read_bytes())

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture(scope="session")
def writer(s3_server: S3) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3", endpoint_url=s3_server.endpoint, aws_access_key_id="test", aws_secret_access_key="test",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )  # fmt: skip


@pytest.fixture
def bucket(s3_server: S3, writer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Bucket]:
    front = Front()
    with proxied(Proxy(s3_server, before=front.answer)) as server:
        front.address = server.endpoint
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield S3Bucket(writer, s3_server.bucket(), front)
