"""A published generation as `manifest.json` describes it: its shards and files, their digests, and the settings.

In: the parsed JSON, or the generation to be written. Out: a Generation, or the JSON. The manifest, not the content of
the folder, says which shards belong to a generation.
Not here: files and links (generations.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedcli.config import IndexSettings
from embedcli.fingerprints import Fingerprints
from embedcli.index.shards import Shard
from embedcli.records import Root
from embedcli.vault.disk import Written

FORMAT = 1
FILES = ("documents.parquet", "probe.npy")


@dataclass(frozen=True)
class Generation:
    """One published state of the index. `mounts`: for each root id the mount points below the root, as paths below it;
    `files`: the files beside the shards.

    `probe_max_tokens` is the length to which the probe texts were cut. It can differ from `settings.max_tokens`: a
    `--rebuild` with another `--max-tokens` that finds every vector in the cache opens no engine and keeps the old
    probe set. `probe_version` says which texts the probe set has.
    """

    number: int
    parent: int | None
    complete: bool
    created_at: str
    settings: IndexSettings
    fingerprints: Fingerprints
    roots: tuple[Root, ...]
    mounts: Mapping[str, tuple[str, ...]]
    query: Mapping[str, Any]
    probe_max_tokens: int
    probe_version: int
    counts: Mapping[str, Any]
    shards: Mapping[str, Shard]
    files: Mapping[str, Written] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "generation": self.number,
            "parent": self.parent,
            "complete": self.complete,
            "created_at": self.created_at,
            "settings": self.settings.to_json(),
            "fingerprints": dataclasses.asdict(self.fingerprints),
            "roots": [
                {**dataclasses.asdict(root), "mounts": list(self.mounts.get(root.id, ()))} for root in self.roots
            ],
            "query": dict(self.query),
            "probe_max_tokens": self.probe_max_tokens,
            "probe_version": self.probe_version,
            "counts": dict(self.counts),
            "shards": [_shard_json(shard) for shard in self.shards.values()],
            "files": {name: {"bytes": file.size_bytes, "sha256": file.sha256} for name, file in self.files.items()},
        }

    @classmethod
    def from_json(cls, data: Any, *, vectors: Path, keys: Path) -> Generation:
        """Raises ValueError when `data` is not a manifest."""
        try:
            return cls._from_json(data, vectors, keys)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("it is not a manifest of this format") from error

    @classmethod
    def _from_json(cls, data: dict[str, Any], vectors: Path, keys: Path) -> Generation:
        listed = [
            Shard(
                name=Path(entry["key"]).stem,
                rows=entry["rows"],
                size_bytes=entry["bytes"],
                sha256=entry["sha256"],
                keys_sha256=entry["keys_sha256"],
                folder=vectors,
                keys_folder=keys,
            )
            for entry in data["shards"]
        ]
        return cls(
            number=data["generation"],
            parent=data["parent"],
            complete=data["complete"],
            created_at=data["created_at"],
            settings=IndexSettings.from_json(data["settings"]),
            fingerprints=Fingerprints(**data["fingerprints"]),
            roots=tuple(Root.from_json(entry) for entry in data["roots"]),
            mounts={entry["id"]: tuple(entry["mounts"]) for entry in data["roots"]},
            query=data["query"],
            probe_max_tokens=data["probe_max_tokens"],
            probe_version=data["probe_version"],
            counts=data["counts"],
            shards={shard.name: shard for shard in listed},
            files={name: Written(data["files"][name]["bytes"], data["files"][name]["sha256"]) for name in FILES},
        )


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {
        "key": f"vectors/{shard.name}.parquet",
        "rows": shard.rows,
        "bytes": shard.size_bytes,
        "sha256": shard.sha256,
        "keys_sha256": shard.keys_sha256,
    }
