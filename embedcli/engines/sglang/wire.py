"""The frames between our process and the engine host.

In: a socket. Out: frames, and the rows of token ids packed into one. The guard imports this module and must stay tiny,
so numpy is imported where rows are packed, and not before.
Not here: what is sent when (process.py, host.py).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

INSTANCE = "instance-"
"""A file in the host's folder: this, and the name that SGLang gave itself."""

Frame = tuple[int, int, int, bytes | bytearray]
"""Number of the list, kind, rows, data."""

FRAME = struct.Struct("<QIIQ")
"""The same ahead of the data, with its size."""

JOB, READY, ROWS, VECTORS, FAILED = range(5)


def send_frame(channel: socket.socket, frame: Frame) -> None:
    number, kind, rows, data = frame
    channel.sendall(FRAME.pack(number, kind, rows, len(data)))
    channel.sendall(data)


def receive_frame(channel: socket.socket) -> Frame | None:
    """The next frame, or None when the other side is gone."""
    head = _receive(channel, FRAME.size)
    if head is None:
        return None
    number, kind, rows, size = FRAME.unpack(head)
    data = _receive(channel, size)
    return None if data is None else (number, kind, rows, data)


def _receive(channel: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        try:
            count = channel.recv_into(view)
        except OSError:
            return None
        if not count:
            return None
        view = view[count:]
    return data


def pack_rows(rows: Sequence[np.ndarray]) -> bytes:
    """uint32: the length of each row, then all ids."""
    import numpy as np

    lengths = np.fromiter((row.size for row in rows), dtype=np.uint32, count=len(rows))
    return np.concatenate([lengths, *rows]).astype(np.uint32, copy=False).tobytes()


def unpack_rows(data: bytes | bytearray, count: int) -> list[list[int]]:
    """As SGLang wants them: lists of int, nothing else."""
    import numpy as np

    numbers = np.frombuffer(data, dtype=np.uint32)
    ids = numbers[count:].tolist()
    ends = np.cumsum(numbers[:count], dtype=np.int64).tolist()
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]
