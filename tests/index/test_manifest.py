"""A damaged manifest is an error that names the field, the file and the next command, for every field and command."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedcli.errors import DamagedIndex, EmbedcliError, StorageError
from embedcli.index.manifest import manifest_bytes
from tests.published import damage, edit_manifest, index_of
from tests.workshop import Workshop, words

LONG = bool(os.environ.get("EMBEDCLI_TESTS_LONG"))
REMOVED = object()
VALUES = (REMOVED, None, True, -1, 0, 10**30, 1.5, "text", "", "no\0path", "../../x", [], [None], {}, {"x": None})
COMMANDS = (
    ("search", "words", "--mode", "words"),
    ("search", "words"),
    ("rows",),
    ("rows", "--where", "chunk_index = 0"),
    ("status",),
    ("status", "--failed"),
    ("verify",),
    ("changes", "--since", "0"),
    ("recut", "--dim", "8", "--out", "{out}"),
    ("ingest",),
    ("ingest", "--dry-run"),
    ("doctor",),
    ("rollback",),
    ("forget", "{docs}"),
)
Place = tuple[str | int, ...]


@pytest.fixture
def two(shop: Workshop) -> Workshop:
    """Two generations: the older one is the way back."""
    for number in range(3):
        shop.write(f"part/{number}.txt", words(60, number))
    shop.ingest()
    shop.write("new.txt", words(60, 9))
    shop.ingest()
    return shop


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Every field of a manifest, at any depth; of a list the first item."""
    if isinstance(value, dict):
        for name in value:
            yield (*here, name)
            yield from places(value[name], (*here, name))
    elif isinstance(value, list) and value:
        yield (*here, 0)
        yield from places(value[0], (*here, 0))


def damaged(manifest: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(manifest)
    inside: Any = data
    for step in place[:-1]:
        inside = inside[step]
    if value is REMOVED:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return data


def manifest_of(shop: Workshop) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((shop.index / "current/manifest.json").read_bytes())
    return data


def all_damaged(manifest: dict[str, Any]) -> Iterator[tuple[Place, Any, dict[str, Any]]]:
    for place in places(manifest):
        for value in VALUES:
            data = damaged(manifest, place, value)
            if data != manifest:
                yield place, value, data


MAY_BE_MISSING = {
    "sha256",
    *(f"roots.0.{name}" for name in ("selection", "default_excludes", "follow_links", "records", "stream")),
}
"""What manifests of older versions lack."""
NOT_READ = {
    f"query.{name}"
    for name in (
        *("dim", "document_prompt", "query_prompt", "end_token_id", "pooling", "max_tokens", "normalise", "similarity"),
        *("quantization", "precisions"),
    )
} | {"sha256"}
"""What is for other programs alone: `verify` compares it."""


def test_every_field_of_a_manifest_is_looked_at_when_it_is_read(two: Workshop) -> None:
    manifest, index = manifest_of(two), index_of(two)
    path = two.index / "current/manifest.json"
    count = 0
    for place, value, data in all_damaged(manifest):
        path.write_text(json.dumps(data))
        name = ".".join(map(str, place))
        if name == "format" and value == 10**30:  # of a newer version
            continue
        try:
            index.read(2)
        except DamagedIndex as error:
            count += 1
            assert str(path.resolve()) in str(error) and "embedcli rollback --to 1" in error.hint
            assert f"`{name}" in str(error) or place[-1] == 0 or name in ("generation", "parent"), (name, str(error))
        else:
            same_kind = type(value) is type(at(manifest, place)) or name in NULLABLE
            is_free = same_kind or value == [] or name in NOT_READ or name.startswith("counts.status")
            is_item = place[-1] == 0
            assert is_free or (value is REMOVED and (is_item or name in MAY_BE_MISSING)), (name, value)
    assert count > 500


NULLABLE = {"parent", "settings.commit", "settings.quantization", "query.commit", "roots.0.selection"}


def at(data: Any, place: Place) -> Any:
    for step in place:
        data = data[step]
    return data


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_ends_in_a_traceback_whatever_field_is_damaged(
    two: Workshop, command: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    """With the digest of the manifest as it should be, so that only the look at each field can help."""
    index, path = index_of(two), two.index / "current/manifest.json"
    read: dict[bool, list[tuple[Place, Any, bytes]]] = {True: [], False: []}
    for place, value, data in all_damaged(manifest_of(two)):
        written = manifest_bytes(data) if isinstance(data.get("query"), dict) else json.dumps(data).encode()
        path.write_bytes(written)
        read[index.readable(2) is not None].append((place, value, written))
    chance = random.Random(COMMANDS.index(arguments))
    chosen = read[True] + read[False] if LONG else chance.sample(read[True], 7) + chance.sample(read[False], 2)
    for number, (place, value, written) in enumerate(chosen):
        path.write_bytes(written)
        filled_in = [part.format(out=two.index.parent / f"out-{number}", docs=two.docs) for part in arguments]
        ran = command(*filled_in, "--index", two.index)
        told = ran.exception is None or isinstance(ran.exception, SystemExit | EmbedcliError)
        assert told, (place, value, repr(ran.exception))
        if (two.index / "current").readlink().name != "000002":
            two.index.joinpath("current").unlink()
            two.index.joinpath("current").symlink_to("generations/000002")


def test_a_shard_that_the_manifest_does_not_list_is_damaged_and_its_file_no_stray(
    two: Workshop, command: Callable[..., Any]
) -> None:
    manifest = damaged(manifest_of(two), ("shards",), [])
    (two.index / "current/manifest.json").write_bytes(manifest_bytes(manifest))
    two.write("part/1.txt", words(60, 77))
    for arguments in (("forget", two.docs), ("ingest",)):
        ran = command(*arguments, "--index", two.index)
        assert "is damaged: the manifest does not list it" in str(ran.exception)
        assert isinstance(ran.exception, StorageError) and "embedcli verify" in ran.exception.hint
    verified = command("verify", "--index", two.index)
    assert "which is not in the manifest" in verified.output and "rollback --to 1" in verified.output
    assert "`rm " not in verified.output, "the documents have their rows in these files"


def test_verify_finds_every_change_of_a_manifest_that_can_be_read(two: Workshop) -> None:
    manifest = manifest_of(two)
    path = two.index / "current/manifest.json"
    assert damage(two) == []
    for place in [("query", "dim"), ("created_at",), ("settings", "model"), ("counts", "tokens"), ("probe_version",)]:
        value = at(manifest, place)
        path.write_text(json.dumps(damaged(manifest, place, value + 1 if isinstance(value, int) else f"{value}x")))
        problems = [(item.file, item.problem) for item in damage(two)]
        assert ("generations/000002/manifest.json", "its sha256 is not that of its content") in problems, place
    path.write_text(json.dumps(manifest, indent=7))
    assert damage(two) == [], "another layout is no damage"


def test_the_folder_of_the_model_may_be_corrected_by_hand(two: Workshop) -> None:
    manifest = manifest_of(two)
    manifest["query"]["folder"] = "/somewhere/else"
    (two.index / "current/manifest.json").write_text(json.dumps(manifest))
    assert damage(two) == []


def test_a_manifest_of_an_older_version_has_no_digest_and_is_no_damage(two: Workshop) -> None:
    edit_manifest(two, lambda data: None)
    manifest = manifest_of(two)
    del manifest["sha256"]
    (two.index / "current/manifest.json").write_text(json.dumps(manifest))
    assert damage(two) == []


def test_a_manifest_that_is_nested_without_end_is_damaged(two: Workshop) -> None:
    (two.index / "current/manifest.json").write_text("[" * 100_000)
    with pytest.raises(DamagedIndex):
        index_of(two).read(2)
