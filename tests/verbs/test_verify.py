"""The promises of `verify`: it reports every kind of damage, and none in an undamaged index."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.errors import DamagedIndex, StorageError
from embedcli.index.manifest import Generation
from embedcli.verbs import verify
from embedcli.verbs.edits import forget
from embedcli.verbs.verify import Damage
from tests.fake_engines import tilted
from tests.published import Rows, damage, filled, index_of, put, rewrite_documents, rewritten, silent, spoil
from tests.workshop import Workshop, words


def test_verify_finds_no_damage_in_an_undamaged_index_after_several_runs(shop: Workshop) -> None:
    filled(shop, 12)
    for night in range(3):
        shop.write(f"part-0/file-{2 * night}.txt", words(200, 1000 + night))
        (shop.docs / f"part-1/file-{2 * night + 1}.txt").unlink()
        shop.ingest()
        assert damage(shop) == []


@pytest.mark.parametrize(
    "name", ["current/vectors/*.parquet", "current/documents.parquet", "current/probe.npy", "keys/*"]
)
def test_one_flipped_bit_is_reported_with_its_file(kept: Workshop, name: str) -> None:
    (file,) = kept.index.glob(name)
    for at in (0, file.stat().st_size // 2, -1):
        spoil(file, at=at)
        (found,) = damage(kept)
        assert found == Damage(str(file.resolve().relative_to(kept.index)), "its sha256 is not the one in the manifest")
        spoil(file, at=at)
    assert damage(kept) == []


@pytest.mark.parametrize(
    "name", ["current/vectors/*.parquet", "current/documents.parquet", "current/probe.npy", "keys/*"]
)
def test_a_missing_file_is_reported(kept: Workshop, name: str) -> None:
    (file,) = kept.index.glob(name)
    expected = Damage(str(file.resolve().relative_to(kept.index)), "is missing")
    file.unlink()
    assert expected in damage(kept)


def test_a_torn_shard_is_reported_with_its_size(kept: Workshop) -> None:
    (file,) = kept.index.glob("current/vectors/*.parquet")
    os.truncate(file, 100)
    (found,) = damage(kept)
    assert "it has 100 bytes, not" in found.problem


def test_shards_and_keys_that_no_manifest_names_are_reported(kept: Workshop) -> None:
    (shard,) = kept.index.glob("current/vectors/*.parquet")
    shutil.copy(shard, shard.with_name("part-copy.parquet"))
    (kept.index / "keys" / "part-lost.npy").write_bytes(b"")
    assert [(Path(item.file).name, item.problem) for item in damage(kept)] == [
        ("part-copy.parquet", "is not in the manifest"),
        ("part-lost.npy", "does not belong to a shard"),
    ]
    busy = verify.verify(index_of(kept), run_is_under_way=True)
    assert [Path(item.file).name for item in busy.damage] == ["part-copy.parquet"], "a run may still name the key"


EDITS: dict[str, tuple[Rows, str]] = {
    "long vector": (
        lambda t: put(t, "vector", lambda v: [[x * 1.01 for x in v[0]], *v[1:]]),
        "1 vectors are not of unit",
    ),
    "nan": (lambda t: put(t, "vector", lambda v: [[float("nan")] * 16, *v[1:]]), "1 vectors are not finite"),
    "double": (lambda t: put(t, "chunk_id", lambda v: [v[0], v[0], *v[2:]]), "1 chunk_ids that an earlier"),
    "no id": (lambda t: put(t, "chunk_id", lambda v: ["", *v[1:]]), "not 32 hex"),
    "order": (lambda t: put(t, "chunk_index", lambda v: [v[1], v[0], *v[2:]]), "1 rows are not in the order"),
    "document": (lambda t: put(t, "doc_id", lambda v: ["0" * 32, *v[1:]]), "1 rows are not of the document"),
    "rows": (lambda t: t.slice(1), "rows, the manifest says"),
    "schema": (lambda t: t.drop_columns(["meta"]), "its schema is not that of the index"),
}


@pytest.mark.parametrize("name", EDITS)
def test_invalid_rows_are_counted(kept: Workshop, name: str) -> None:
    edit, expected = EDITS[name]
    (problem,) = rewritten(kept, edit)
    assert expected in problem


SOURCES: dict[str, tuple[Rows, list[str]]] = {
    "twice": (
        lambda t: pa.concat_tables([t, t.slice(5)]),
        ["has 7 sources, the manifest says 6", "has 1 sources twice"],
    ),
    "stranger": (
        lambda t: put(t, "root", lambda v: ["0" * 32, *v[1:]]),
        ["has 1 sources of roots that are not in the manifest"],
    ),
    "tokens": (lambda t: put(t, "tokens", lambda v: [v[0] + 1, *v[1:]]), ["tokens, the manifest says"]),
    "status": (
        lambda t: put(t, "status", lambda v: ["stale", *v[1:]]),
        ["has {'indexed': 5, 'stale': 1}, the manifest"],
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_invalid_sources_are_counted(kept: Workshop, name: str) -> None:
    edit, expected = SOURCES[name]
    rewrite_documents(kept, edit)
    problems = [item.problem for item in damage(kept)]
    assert all(any(part in problem for problem in problems) for part in expected), problems


def test_a_flipped_bit_in_any_file_of_the_index_is_reported(shop: Workshop) -> None:
    """Whatever a run has written and may read again: the manifests, older generations, change lists, the cache."""
    filled(shop)
    shop.write("part-0/file-0.txt", words(150, 70))
    shop.ingest()
    files = [path for path in sorted(shop.index.rglob("*")) if path.is_file() and not path.is_symlink()]
    looked_at = {"generations": 0, "changes": 0, "cache": 0, "keys": 0}
    for file in files:
        name = str(file.relative_to(shop.index))
        if name.startswith(("state/", "current/")) or name == "lock":
            continue
        looked_at[name.partition("/")[0]] += 1
        size = file.stat().st_size
        for at in [*range(size // 7, size, 1 + size // 5), -1] if size else []:
            same = {path for path in files if path.samefile(file)}
            data = file.read_bytes()
            spoil(file, at=at)
            spoiled = file.read_bytes()
            for other in same:
                other.write_bytes(spoiled)  # a hard link of the current generation
            try:
                found = {item.file for item in damage(shop)}
            except DamagedIndex as error:
                found = {name for path in same if str(path) in str(error)}
            is_stamp = name.startswith("changes/") and at != size // 7
            assert found & {str(path.relative_to(shop.index)) for path in same} or is_stamp, (name, at)
            for other in same:
                other.write_bytes(data)
    assert damage(shop) == [] and all(looked_at.values()), looked_at


def test_a_cache_that_cannot_be_read_or_is_of_an_older_version_is_told_apart(kept: Workshop) -> None:
    (file,) = kept.index.glob("cache/*.search")
    file.write_bytes(b'{"sidecar": 1, "words": 1'.ljust(9_000))
    assert damage(kept) == []
    file.write_bytes(b"")
    assert [item.file for item in damage(kept)] == [f"cache/{file.name}"]


def test_a_change_list_that_says_what_no_run_writes_is_reported(kept: Workshop) -> None:
    (file,) = kept.index.glob("changes/*.parquet")
    table = pq.read_table(file)
    for name, value in (("op", "renamed"), ("chunk_id", "7"), ("chunk_id", None)):
        pq.write_table(put(table, name, lambda v, value=value: [value, *v[1:]]), file)  # type: ignore[misc]
        assert [item.problem for item in damage(kept)] == ["has 1 ids or operations that no run writes"]
    pq.write_table(table.rename_columns(["id", "op"]), file)
    assert [item.problem for item in damage(kept)] == ["its columns are not those of a change list"]
    file.unlink()
    assert [item.problem for item in damage(kept)] == ["is missing: loaders have to load everything again"]


def test_an_older_generation_that_a_run_clears_meanwhile_is_no_damage(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(shop)
    shop.write("part-0/file-0.txt", words(150, 70))
    shop.ingest()
    index = index_of(shop)
    readable = index.readable

    def then_cleared(number: int) -> Generation | None:
        found = readable(number)
        if number == 1:
            shutil.rmtree(index.path(1), ignore_errors=True)
        return found

    monkeypatch.setattr(index, "readable", then_cleared)
    assert verify.verify(index, run_is_under_way=True).damage == []


def test_foreign_files_among_the_generations_are_reported(kept: Workshop) -> None:
    for name in ("000001/junk", "junk", "000001/vectors/part-copy.txt"):
        (kept.index / "generations" / name).write_text("x")
    (kept.index / "generations" / "000007").mkdir()
    (kept.index / "generations" / "000008.tmp").mkdir()
    assert damage(kept) == [
        Damage("generations/000001/vectors/part-copy.txt", "is not in the manifest"),
        Damage("generations/000001/junk", "is not in the manifest"),
        Damage("generations/000007/manifest.json", "cannot be read, so no rollback can go to it"),
        Damage("generations/junk", "is not a generation"),
    ]


def test_a_chunk_id_in_two_shards_is_found() -> None:
    ids = verify._Ids()
    rows = pa.table({"chunk_id": [f"{number:032x}" for number in range(100)]})
    assert ids.add("one", rows)
    assert ids.add("two", rows.slice(90))
    assert ids.add("three", pa.table({"chunk_id": [f"{number:032x}" for number in range(100, 200)]}))
    assert ids.duplicates() == {"two": 10}


def test_ranges_that_do_not_cover_a_shard_are_reported(kept: Workshop) -> None:
    rewrite_documents(kept, lambda table: table.slice(1))
    problems = [item.problem for item in damage(kept)]
    assert any("its ranges do not cover each row" in problem for problem in problems)
    assert "has 5 sources, the manifest says 6" in problems


def test_a_verb_that_reads_a_damaged_shard_fails_and_changes_nothing(kept: Workshop) -> None:
    (file,) = kept.index.glob("current/vectors/*.parquet")
    file.write_bytes(b"nothing of a shard")
    with pytest.raises(StorageError, match="the current generation stays") as caught:
        forget.forget(index_of(kept), str(kept.docs), warn=silent)
    assert "embedcli verify" in caught.value.hint
    assert index_of(kept).current_number() == 1


def test_an_engine_that_gives_other_vectors_is_reported(kept: Workshop) -> None:
    stored = index_of(kept).probe(1)
    same, other = (verify.verify(index_of(kept)) for _ in range(2))
    verify.compare_engine(index_of(kept), same, lambda _: stored)
    assert (same.probe_cosine, same.damage) == (pytest.approx(1.0), [])
    verify.compare_engine(index_of(kept), other, lambda _: np.roll(stored, 1, axis=0))
    assert [item.problem[:38] for item in other.damage] == ["the engine now gives other vectors: co"]


@pytest.mark.parametrize(("quantization", "sound"), [("fp8", True), (None, False)])
def test_vectors_of_8_bits_may_differ_more_from_the_stored_ones(
    kept: Workshop, quantization: str | None, sound: bool
) -> None:
    manifest = kept.index / "current/manifest.json"
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(data | {"settings": data["settings"] | {"quantization": quantization}}))
    index = index_of(kept)
    now = np.stack([tilted(one, 0.9977) for one in index.probe(1)])
    verdict = verify.verify(index)
    before = list(verdict.damage)
    verify.compare_engine(index, verdict, lambda _: now)
    assert verdict.probe_cosine == pytest.approx(0.9977)
    assert (verdict.damage == before) is sound
