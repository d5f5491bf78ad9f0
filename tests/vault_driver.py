"""A process that publishes into a vault until it is killed: parts under new names, then a pointer that names them.

In: a URL, a name. Out: a line on stdout for each pointer that it has swapped in.
Not here: when it is killed, and what has to hold afterwards (vault/test_contract.py).
"""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

from embedcli.vault.contract import Overtaken, Vault  # noqa: E402
from embedcli.vault.opened import open_vault  # noqa: E402

PARTS = 3
PART_BYTES = 20_000


def publish(vault: Vault, writer: str) -> int | None:
    """One more generation; None where another writer was quicker."""
    try:
        data, version = vault.read("current.json")
        number = json.loads(data)["number"] + 1
    except FileNotFoundError:
        number, version = 1, None
    parts = [f"parts/{number}-{secrets.token_hex(8)}" for _ in range(PARTS)]
    for part in parts:
        vault.put_new(part, f"{number} ".encode() * PART_BYTES)
    pointer = {"number": number, "writer": writer, "parts": parts, "nonce": secrets.token_hex(8)}
    try:
        vault.swap("current.json", version, json.dumps(pointer).encode())
    except Overtaken:
        return None
    return number


def look(vault: Vault) -> int:
    """The number of the generation that is current; each of its parts must be there, whole and of it."""
    try:
        pointer = json.loads(vault.read("current.json")[0])
    except FileNotFoundError:
        return 0
    for part in pointer["parts"]:
        assert vault.read(part)[0] == f"{pointer['number']} ".encode() * PART_BYTES, part
    return int(pointer["number"])


if __name__ == "__main__":
    opened = open_vault(sys.argv[1])
    while True:
        done = publish(opened, sys.argv[2])
        if done is not None:
            print(done, flush=True)
