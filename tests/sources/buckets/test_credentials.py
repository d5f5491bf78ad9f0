"""Where credentials are looked for, and that those of a role are renewed in time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import BucketError
from embedcli.sources.buckets.credentials import Credentials
from embedcli.sources.buckets.signing import Keys

UNTIL = 1_900_000_000
IN_WORDS = datetime.fromtimestamp(UNTIL, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
ROLE = "/latest/meta-data/iam/security-credentials/"


class Services(BaseHTTPRequestHandler):
    """The metadata of a machine, the credentials of a container and the token service, in one."""

    server: Any

    def _serve(self) -> None:
        self.server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        number = len(self.server.asked)
        keys = {"AccessKeyId": f"id{number}", "SecretAccessKey": "s", "Token": "t", "Expiration": IN_WORDS}
        answers = {
            "/latest/api/token": "ticket",
            ROLE: "nightly\n",
            f"{ROLE}nightly": json.dumps(keys),
            "/container": json.dumps(keys),
            "/": f"<r><AccessKeyId>id{number}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{IN_WORDS}</Expiration></r>",
        }
        path = self.path.partition("?")[0]
        ticket = self.headers.get("X-aws-ec2-metadata-token")
        allowed = {ROLE: ticket == "ticket", "/container": self.headers.get("Authorization") == "pass"}
        body = answers[path].encode()
        self.send_response(200 if allowed.get(path, True) else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@pytest.fixture
def services() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Services)
    server.asked = []
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_environment_counts_before_any_role(services: Any) -> None:
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    role = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{services.address}/container"}
    assert Credentials({**given, **role}).now() == Keys("a", "b", "c")
    assert services.asked == []


def test_a_public_bucket_needs_none(services: Any) -> None:
    assert Credentials({"AWS_SKIP_SIGNATURE": "true"}).now() is None


def test_the_role_of_a_container(services: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pass\n")
    given = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{services.address}/container",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
    }
    assert Credentials(given).now() == Keys("id1", "s", "t")


def test_the_role_of_the_machine(services: Any) -> None:
    given = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": services.address}
    assert Credentials(given).now() == Keys("id3", "s", "t")
    assert services.asked == ["PUT /latest/api/token", f"GET {ROLE}", f"GET {ROLE}nightly"]


def test_the_role_of_a_pod(services: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token")
    given = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/nightly",
        "AWS_ENDPOINT_URL_STS": services.address,
    }
    assert Credentials(given).now() == Keys("id1", "s", "t")


def test_a_role_is_asked_again_a_while_before_its_keys_expire(services: Any) -> None:
    now = [UNTIL - 3600.0]
    given = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{services.address}/container"}
    credentials = Credentials({**given, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "pass"}, clock=lambda: now[0])
    first = credentials.now()
    now[0] = UNTIL - 301.0
    assert credentials.now() == first
    now[0] = UNTIL - 299.0
    assert credentials.now() != first


def test_without_any_the_two_variables_are_named() -> None:
    with pytest.raises(BucketError, match="export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as raised:
        Credentials({"AWS_EC2_METADATA_DISABLED": "true"}).now()
    assert raised.value.reason == "permission"
