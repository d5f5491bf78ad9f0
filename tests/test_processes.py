"""What both supervisors share: messages arrive whole, a child dies with its parent, its last words can be read."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedcli.processes import last_words, receive, receive_message, send_message, spawn


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_arrive_whole_in_their_order_whatever_their_size(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    send_message(ours, b"one")
    send_message(ours, b"")
    send_message(ours, b"in ", bytearray(b"two "), b"parts")
    assert [receive_message(theirs) for _ in range(3)] == [b"one", b"", b"in two parts"]


def test_a_message_torn_by_the_death_of_the_other_side_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall((100).to_bytes(8, "little") + b"only this")
    ours.close()
    assert receive_message(theirs) is None
    assert receive_message(theirs) is None


def test_who_waits_may_give_up(pair: tuple[socket.socket, socket.socket]) -> None:
    def give_up() -> None:
        raise TimeoutError("too long")

    with pytest.raises(TimeoutError, match="too long"):
        receive(pair[1], 1, wait=give_up)


def test_a_side_that_is_gone_is_none_when_receiving_and_an_error_when_sending(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.close()
    assert receive_message(ours) is None
    with pytest.raises(OSError):
        send_message(ours, b"anybody?")


@pytest.mark.parametrize(
    ("written", "since_byte", "words"),
    [
        (b"short", 0, b"short"),
        (b"0123456789ab", 0, b"456789ab"),
        (b"0123456789", 7, b"789"),
        (b"", 0, b""),
        (b"ab", 9, b""),
    ],
)
def test_last_words_are_the_end_of_what_was_written_since(written: bytes, since_byte: int, words: bytes) -> None:
    with tempfile.TemporaryFile() as log:
        log.write(written)
        log.flush()
        assert last_words(log.fileno(), most_bytes=8, since_byte=since_byte) == words


CHILD = """
import os, signal, socket, sys
from embedcli.processes import die_with, ignore_stops, receive_message, send_message

def main(channel, parent_pid):
    ignore_stops()
    die_with(parent_pid)
    ours = socket.socket(fileno=channel)
    print("born", flush=True)
    send_message(ours, f"{os.getpid()} {os.getsid(0)} {parent_pid} {'__main__' in str(sys.argv)}".encode())
    receive_message(ours)
    signal.pause()
"""


def test_a_child_gets_the_socket_a_session_and_our_id_and_ignores_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    (tmp_path / "a_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    ours, theirs = pair
    with tempfile.TemporaryFile() as log:
        child = spawn(
            "a_child", "main", theirs, stdin=subprocess.DEVNULL, output=log.fileno(), environment={"PATH": os.defpath}
        )
        theirs.close()
        assert receive_message(ours) == f"{child.pid} {child.pid} {os.getpid()} False".encode()
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        send_message(ours, b"go on")
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
        child.kill()
        assert child.wait(60) == -signal.SIGKILL
        assert last_words(log.fileno(), most_bytes=100) == b"born\n"


def test_a_child_whose_parent_is_gone_before_it_asks_ends_at_once() -> None:
    code = "from embedcli.processes import die_with; die_with(1 << 22); print('lives on')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
