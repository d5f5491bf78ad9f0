"""Names, ids and reasons: what every stage shares."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedcli.records import from_printable, printable

NAMES = st.binary(min_size=1, max_size=24).filter(lambda name: b"\0" not in name and b"/" not in name)
TRICKY = st.text("aé%25F/", min_size=1).map(str.encode)


@given(NAMES | TRICKY)
def test_a_printable_name_leads_back_to_its_bytes(name: bytes) -> None:
    assert from_printable(printable(name)) == name
