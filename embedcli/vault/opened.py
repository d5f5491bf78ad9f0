"""The vault behind a URL.

In: `s3://bucket/prefix`, `gs://bucket/prefix`, `file:///folder`. Out: its vault, one for each URL of a process, so that
all its calls share one pool of connections.
Not here: the vaults (objects.py, folder.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from embedcli.vault.buckets import FILE, open_bucket
from embedcli.vault.contract import Vault
from embedcli.vault.folder import FolderVault
from embedcli.vault.objects import ObjectVault


@cache
def open_vault(url: str) -> Vault:
    """Raises UsageError where it is no URL of a vault, StorageError without the extra `s3`."""
    if url.startswith(f"{FILE}/"):
        return FolderVault(Path(url.removeprefix(FILE)))
    return ObjectVault(open_bucket(url), url)
