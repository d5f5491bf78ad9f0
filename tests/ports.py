"""A port for a server that must be given one. In: nothing. Out: a number. Not here: servers that can bind port 0."""

import secrets
import socket


def free_port() -> int:
    """Above those that Ray gives its workers, below those that the kernel gives to anybody."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
