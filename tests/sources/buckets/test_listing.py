"""The order of a listing is that of the walk, whatever the keys are; and it takes little memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedcli.sources.buckets.contract import Page, object_stat
from embedcli.sources.buckets.listing import Listing, key_of

keys = st.sets(st.text("ab-.é日 %F0/#!", min_size=1, max_size=8), max_size=30)


def listing(names: list[str], *, prefix: str = "", per_page: int = 7) -> Listing:
    """As a server gives it out: by the bytes of the keys, page by page."""
    ordered = sorted((prefix + name).encode() for name in names)
    pages = [ordered[start : start + per_page] for start in range(0, len(ordered), per_page)]
    return Listing(
        (
            Page(page, [len(key) for key in page], [7] * len(page), [hash(key) & 0xFF for key in page], set(page[:1]))
            for page in pages
        ),
        prefix=prefix,
    )


@given(names=keys, prefix=st.sampled_from(["", "docs/", "a b/"]))
def test_paths_come_in_the_order_of_their_components_each_with_its_own_stat(names: set[str], prefix: str) -> None:
    found = list(listing(sorted(names), prefix=prefix))
    parts = [one.path.split("/") for one in found]
    assert parts == sorted(parts)
    assert {key_of(one.path) for one in found} == names and len(found) == len(names)
    for one in found:
        key = (prefix + key_of(one.path)).encode()
        assert one.stat == object_stat(len(key), 7, hash(key) & 0xFF)


def test_cold_objects_are_known_by_their_keys() -> None:
    found = {one.path: one.is_cold for one in listing(["a%FF", "a-b", "a/b"], per_page=1)}
    assert found == {"a%25FF": True, "a-b": True, "a/b": True}
    assert [one.is_cold for one in listing(["a", "b", "c"])] == [True, False, False]


def test_ignore_files_and_indexes_are_seen() -> None:
    names = [".embedcliignore", "x/.gitignore", "x/a.txt", "idx/generations/000001/manifest.json", "x/generations/1/a"]
    found = listing([*names, "idx/generations/000001/documents.parquet", "y/generations/000001/manifest.json"])
    assert found.ignore_files == {".embedcliignore", "x/.gitignore"} and found.indexes == {"idx"}
