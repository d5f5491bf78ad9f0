"""The frames between our process and the engine host.

In: a socket. Out: frames, and the batches of token ids packed into one. The guard imports this module and must stay
tiny, so numpy is imported where a batch is packed, and not before.
Not here: how a message crosses (processes.py), what is sent when (process.py, host.py).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedcli.processes import receive_message, send_message

if TYPE_CHECKING:
    import numpy as np

INSTANCE = "instance-"
"""How the name of a file in the host's folder begins; the rest is the name that SGLang gave its instance."""

Frame = tuple[int, int, int, bytes | bytearray]
"""Number of the batch, kind of frame, number of the batch's rows, data."""

HEAD = struct.Struct("<QII")
"""The numbers of a frame, which go ahead of its data."""

JOB, READY, ROWS, VECTORS, FAILED = range(5)


def send_frame(channel: socket.socket, frame: Frame) -> None:
    number, kind, rows, data = frame
    send_message(channel, HEAD.pack(number, kind, rows), data)


def receive_frame(channel: socket.socket) -> Frame | None:
    """The next frame, or None when the other side is gone."""
    message = receive_message(channel)
    if message is None:
        return None
    number, kind, rows = HEAD.unpack_from(message)
    del message[: HEAD.size]  # copies nothing: a bytearray gives up its front
    return number, kind, rows, message


def pack_rows(batch: Sequence[np.ndarray]) -> bytes:
    """uint32: the length of each row, then the ids of all rows."""
    import numpy as np

    lengths = np.fromiter((ids.size for ids in batch), dtype=np.uint32, count=len(batch))
    return np.concatenate([lengths, *batch]).astype(np.uint32, copy=False).tobytes()


def unpack_rows(data: bytes | bytearray, count: int) -> list[list[int]]:
    """The `count` rows of a packed batch, as lists of int: SGLang takes nothing else."""
    import numpy as np

    numbers = np.frombuffer(data, dtype=np.uint32)
    all_ids = numbers[count:].tolist()
    ends = np.cumsum(numbers[:count], dtype=np.int64).tolist()
    return [all_ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]
