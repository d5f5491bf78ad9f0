"""A published generation as `manifest.json` describes it: its shards and files, their digests, and the settings.

In: the parsed JSON, or the generation to be written. Out: a Generation, or the JSON. The manifest, not the content of
the folder, says which shards belong to a generation.
Not here: files and links (generations.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from embedcli.config import IndexSettings
from embedcli.fields import SHA256, Fields
from embedcli.fingerprints import Fingerprints
from embedcli.index.shards import Shard
from embedcli.records import Root
from embedcli.vault.disk import Written

FORMAT = 1
FILES = ("documents.parquet", "probe.npy")
_SHARD_KEY = re.compile(r"vectors/part-[0-9A-Za-z]+\.parquet")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d\S*")


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
        """Raises ValueError, which names the field, when `data` is not a manifest: every field is looked at."""
        fields = Fields(data)
        fields.whole("format", least=1, most=FORMAT)
        roots = fields.objects("roots")
        files = fields.object("files")
        listed = [_shard_of(entry, vectors, keys) for entry in fields.objects("shards")]
        number = fields.whole("generation", least=1)
        return cls(
            number=number,
            parent=fields.maybe("parent", partial(fields.whole, least=1, most=number - 1)),
            complete=fields.flag("complete"),
            created_at=fields.text("created_at", of=_TIME),
            settings=IndexSettings.of(fields.object("settings")),
            fingerprints=Fingerprints.of(fields.object("fingerprints")),
            roots=tuple(Root.of(entry) for entry in roots),
            mounts={entry.text("id"): entry.texts("mounts") for entry in roots},
            query=_recipe_of(fields),
            probe_max_tokens=fields.whole("probe_max_tokens", least=1),
            probe_version=fields.whole("probe_version"),
            counts=_counts_of(fields.object("counts")),
            shards={shard.name: shard for shard in listed},
            files={name: _written_of(files.object(name)) for name in FILES},
        )


def digest_of_manifest(data: Mapping[str, Any]) -> str:
    """The sha256 (hex) of a manifest's content, whatever its layout; without this digest itself, and without the folder
    of the model, which runs and people correct."""
    content = {name: value for name, value in data.items() if name != "sha256"}
    content["query"] = {name: value for name, value in data["query"].items() if name != "folder"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_as_written(data: Mapping[str, Any]) -> bool:
    """Whether a manifest has the digest of its content; one of an older version has none, and counts."""
    found = digest_of_manifest(data)
    return bool(data.get("sha256", found) == found)


def manifest_bytes(data: Mapping[str, Any]) -> bytes:
    """A manifest as it is written: with the digest by which `verify` knows that nothing in it was changed."""
    return json.dumps({**data, "sha256": digest_of_manifest(data)}, indent=1).encode()


def _shard_of(entry: Fields, vectors: Path, keys: Path) -> Shard:
    return Shard(
        name=Path(entry.text("key", of=_SHARD_KEY)).stem,
        rows=entry.whole("rows"),
        size_bytes=entry.whole("bytes"),
        sha256=entry.text("sha256", of=SHA256),
        keys_sha256=entry.text("keys_sha256", of=SHA256),
        folder=vectors,
        keys_folder=keys,
    )


def _written_of(entry: Fields) -> Written:
    return Written(entry.whole("bytes"), entry.text("sha256", of=SHA256))


def _counts_of(counts: Fields) -> dict[str, Any]:
    numbers = {name: counts.whole(name) for name in ("sources", "chunks", "tokens", "bytes")}
    return {**numbers, "status": counts.wholes("status")}


def _recipe_of(fields: Fields) -> Mapping[str, Any]:
    """The recipe for queries; more may stand in it than what is read of it here."""
    recipe = fields.object("query")
    for name in ("model", "folder", "weights_sha256", "tokenizer_sha256"):
        recipe.text(name)
    recipe.maybe("commit", recipe.text)
    recipe.get("precisions", recipe.texts, tuple[str, ...]())
    whole: Mapping[str, Any] = fields.raw("query")
    return whole


def _shard_json(shard: Shard) -> dict[str, Any]:
    return {
        "key": f"vectors/{shard.name}.parquet",
        "rows": shard.rows,
        "bytes": shard.size_bytes,
        "sha256": shard.sha256,
        "keys_sha256": shard.keys_sha256,
    }
