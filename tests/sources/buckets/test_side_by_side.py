"""A listing by several workers has every key once, whatever the keys and whenever the answers come."""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcli.errors import BucketError
from embedcli.sources.buckets.contract import Page
from embedcli.sources.buckets.side_by_side import Ask, SideBySide, between

texts = st.text("ab/-é日 ~", max_size=6)


def server(keys: list[bytes], *, per_page: int = 3, slow_s: float = 0.0, seed: int = 0) -> tuple[Ask, list[str]]:
    """Gives out the keys page by page, as slowly as chance will have it; and what it was asked."""
    chance, asked, lock = random.Random(seed), [], threading.Lock()

    def ask(after: str, token: str) -> tuple[Page, str]:
        with lock:
            asked.append(after or token)
            pause_s = chance.random() * slow_s
        time.sleep(pause_s)
        first = int(token) if token else bisect_right(keys, after.encode())
        some = keys[first : first + per_page]
        page = Page(some, [len(key) for key in some], [7] * len(some), [hash(key) & 7 for key in some])
        return page, str(first + per_page) if first + per_page < len(keys) else ""

    return ask, asked


def listed(ask: Ask, prefix: str = "") -> list[bytes]:
    pages = list(SideBySide(ask, prefix=prefix).pages())
    for page in pages:
        assert page.sizes == [len(key) for key in page.keys] and page.tags == [hash(key) & 7 for key in page.keys]
        assert len(page.keys) == len(page.modified_s)
    return sorted(key for page in pages for key in page.keys)


@settings(max_examples=60, deadline=None)
@given(found=st.sets(texts, max_size=60), prefix=st.sampled_from(["", "docs/", "é/"]), seed=st.integers(0, 99))
def test_every_key_is_listed_once(found: set[str], prefix: str, seed: int) -> None:
    keys = sorted((prefix + text).encode() for text in found if prefix + text)
    ask, _ = server(keys, slow_s=0.002, seed=seed)
    assert listed(ask, prefix) == keys


def test_a_long_listing_is_asked_for_by_many_at_once_and_not_much_more_often() -> None:
    keys = [f"docs/{number // 100:04d}/report {number:06d}.pdf".encode() for number in range(20_000)]
    ask, asked = server(keys, per_page=100, slow_s=0.04)
    busy, most, lock = [0], [0], threading.Lock()

    def counted(after: str, token: str) -> tuple[Page, str]:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        try:
            return ask(after, token)
        finally:
            with lock:
                busy[0] -= 1

    assert listed(counted, "docs/") == keys
    assert most[0] >= 6 and len(asked) < 2 * 200


def test_a_listing_of_one_page_is_one_request() -> None:
    ask, asked = server([b"a", b"b"])
    assert listed(ask) == [b"a", b"b"] and asked == [""]


def test_a_page_without_keys_does_not_end_a_listing() -> None:
    """Deleted versions may fill a page."""
    pages = {"": ([], "1"), "1": ([], "2"), "2": ([b"a"], "3"), "3": ([b"b"], "")}

    def ask(after: str, token: str) -> tuple[Page, str]:
        keys, following = ([], "") if after else pages[token]
        return Page(list(keys), [1] * len(keys), [7] * len(keys), [hash(key) & 7 for key in keys]), following

    assert listed(ask) == [b"a", b"b"]


def test_a_server_without_order_is_asked_page_by_page() -> None:
    keys = [f"{number * 7919 % 1000:03d}".encode() for number in range(1000)]
    ask, asked = server(keys, per_page=50)
    assert listed(ask) == sorted(keys) and asked == ["", *(str(number) for number in range(50, 1000, 50))]


@pytest.mark.parametrize("at", [2, 5, 17])
def test_what_one_worker_meets_is_raised_and_all_end(at: int) -> None:
    keys = [f"{number:06d}".encode() for number in range(3_000)]
    ask, asked = server(keys, per_page=10, slow_s=0.002)

    def breaks(after: str, token: str) -> tuple[Page, str]:
        if len(asked) >= at:
            raise BucketError("io", "so it is")
        return ask(after, token)

    before = set(threading.enumerate())
    with pytest.raises(BucketError, match="so it is"):
        list(SideBySide(breaks, prefix="").pages())
    assert set(threading.enumerate()) <= before


def test_whoever_takes_no_more_pages_ends_the_listing() -> None:
    ask, asked = server([f"{number:06d}".encode() for number in range(100_000)], per_page=10)
    before = set(threading.enumerate())
    pages = SideBySide(ask, prefix="").pages()
    assert [len(next(pages).keys) for _ in range(3)] == [10, 10, 10]
    pages.close()
    assert set(threading.enumerate()) <= before and len(asked) < 200


@given(one=texts, other=texts)
def test_the_middle_lies_between_and_is_a_text(one: str, other: str) -> None:
    low, high = sorted((one.encode(), other.encode()))
    middle = between(low, high)
    assert middle is None or low < middle < high
    assert middle is None or middle.decode() is not None
    assert between(high, low) is None
