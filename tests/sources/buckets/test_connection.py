"""TLS, proxies and the address of a server, on sockets of the tests' own."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedcli.errors import BucketError
from embedcli.sources.buckets.connection import Answer, Connection

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsafe"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody has signed but itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + made.public_bytes(pem)
    )
    return file


@contextmanager
def serving(certificate: Path) -> Iterator[str]:
    """A server with TLS that gives one answer to each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    with context.wrap_socket(client, server_side=True) as secure:
                        secure.recv(1 << 16)
                        secure.sendall(ANSWER)
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextmanager
def tunnels() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy for one connection, and the heads of what it was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    heads: list[bytes] = []

    def carry(one: socket.socket, other: socket.socket) -> None:
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            heads.append(client.recv(1 << 16))
            host, _, port = heads[0].split()[1].decode().partition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=carry, args=(server, client))
                back.start()
                carry(client, server)
                back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://me:p%40ss@127.0.0.1:{listener.getsockname()[1]}", heads
    finally:
        thread.join()
        listener.close()


def ask(address: str) -> Answer:
    connection = Connection(address, sleep=lambda _: None)
    return connection.ask("/", dict)


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_it_is_named(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(certificate) as address:
        with pytest.raises(BucketError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
            ask(address)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        assert ask(address).body == b"safe"
        with pytest.raises(BucketError, match=r"CERTIFICATE_VERIFY_FAILED|mismatch"):
            ask(address.replace("127.0.0.1", "localhost"))


def test_a_proxy_is_asked_for_a_tunnel_with_its_password(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(certificate) as address, tunnels() as (proxy, heads):
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        assert ask(address).body == b"safe"
    assert heads[0].startswith(f"CONNECT {address.removeprefix('https://')} ".encode())
    assert base64.b64encode(b"me:p@ss") in heads[0]


@pytest.mark.parametrize(
    ("address", "host", "folder"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com", ""),
        ("https://minio:443/", "minio", ""),
        ("http://minio:9000", "minio:9000", ""),
        ("http://[::1]:9000", "[::1]:9000", ""),
        ("https://gateway/s3/", "gateway", "/s3"),
    ],
)
def test_the_host_is_signed_as_it_is_sent(address: str, host: str, folder: str) -> None:
    assert (Connection(address).host, Connection(address).folder) == (host, folder)


@pytest.mark.parametrize("address", ["minio:9000", "ftp://minio", "http://", "localhost"])
def test_an_address_that_is_none_is_told_with_an_example(address: str) -> None:
    with pytest.raises(BucketError, match="must be like `http://host:9000`"):
        Connection(address)
