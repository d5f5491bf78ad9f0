"""Names, ids and reasons: what every stage shares."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedcli.records import from_printable, from_printable_path, printable, printable_path

NAMES = st.binary(min_size=1, max_size=24).filter(lambda name: b"\0" not in name and b"/" not in name)
TRICKY = st.text("aé%25F/", min_size=1).map(str.encode)


@given(NAMES | TRICKY)
def test_a_printable_name_leads_back_to_its_bytes(name: bytes) -> None:
    assert from_printable(printable(name)) == name


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_printable_path_is_that_of_the_walk_and_leads_back_to_its_bytes(names: list[bytes]) -> None:
    """The walk encodes a name when it meets it, before it knows those that are in it."""
    shown = printable_path(b"/".join(names))
    assert shown == "/".join(map(printable, names)) and from_printable_path(shown) == b"/".join(names)
