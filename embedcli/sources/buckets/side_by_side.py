"""A listing by several requests at a time: a page of a thousand keys takes a server 0.1 s and more, whoever waits.

In: how a page is asked for, from a key on. Out: every object once, in pages of any order. Raises BucketError, and then
no page counts. A worker that has nothing to do takes over the upper half of the range of keys that another one is
listing; where a key lies nobody knows beforehand, so half is half of the letters.
Not here: requests (s3.py), the order of a walk (listing.py).
"""

from __future__ import annotations

import queue
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from embedcli.errors import BucketError
from embedcli.sources.buckets.contract import Page

WORKERS = 8
PAGES_BEFORE_SPLIT = 2
"""A range that is listed with fewer is not worth another request."""
TAKEN_EVERY_S = 0.05
_FIRST, _LAST = 0x20, 0x7E

Ask = Callable[[str, str], tuple[Page, str]]
"""(the key after which to begin, the token of the page before) -> a page, and the token for the next one."""


@dataclass
class _Range:
    """Keys after `last` up to `until`, of which `pages` were listed; it may be split as often as `splits` says until
    the next one comes."""

    last: bytes
    until: bytes | None = None
    token: str = ""
    pages: int = 0
    splits: int = 0


class SideBySide:
    """One listing. `_changed` guards the ranges that are being listed."""

    def __init__(self, ask: Ask, *, prefix: str, workers: int = WORKERS) -> None:
        self._ask = ask
        self._prefix = prefix.encode()
        self._workers = workers
        self._found: queue.Queue[Page] = queue.Queue(2 * workers)
        self._changed = threading.Condition()
        self._open: list[_Range] = []
        self._over = False

    def pages(self) -> Iterator[Page]:
        """Most listings end with their first page, and need no worker. A server without order is asked page by page."""
        page, token = self._ask("", "")
        yield page
        while token and page.keys != sorted(page.keys):
            page, token = self._ask("", token)
            yield page
        if not token:
            return
        self._open.append(_Range(page.keys[-1] if page.keys else b"", token=token))
        with ThreadPoolExecutor(self._workers, thread_name_prefix="listing") as pool:
            working = [pool.submit(self._work, self._open[0])]
            working += [pool.submit(self._work, None) for _ in range(self._workers - 1)]
            try:
                for worker in working:
                    worker.add_done_callback(lambda ended: self._end() if ended.exception() else None)
                yield from self._taken()
            finally:
                self._end()
        for worker in working:
            worker.result()

    def _taken(self) -> Iterator[Page]:
        while True:
            try:
                yield self._found.get(timeout=TAKEN_EVERY_S)
            except queue.Empty:
                if self._over:
                    return

    def _end(self) -> None:
        """Let the workers end, whatever they wait for."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _work(self, mine: _Range | None) -> None:
        while (mine := mine or self._part_of_another()) is not None:
            self._list(mine)
            with self._changed:
                self._open.remove(mine)
                self._over = self._over or not self._open
                self._changed.notify_all()
            mine = None

    def _list(self, mine: _Range) -> None:
        while not self._over:
            begin = mine.last
            page, mine.token = self._ask("" if mine.token else begin.decode(), mine.token)
            if page.keys != sorted(page.keys):
                raise BucketError("io", "the server lists some of its keys in order and others in none")
            with self._changed:
                until = mine.until
                mine.last = max(page.keys[-1], begin) if page.keys else begin
                mine.pages, mine.splits = mine.pages + 1, self._workers
                self._changed.notify_all()
            self._put(_cut(page, begin, until))
            if not mine.token or (until is not None and mine.last >= until):
                return

    def _put(self, page: Page) -> None:
        while not self._over:
            try:
                return self._found.put(page, timeout=TAKEN_EVERY_S)
            except queue.Full:
                continue

    def _part_of_another(self) -> _Range | None:
        """The upper half of the range that has gone on for longest; None when there are no more."""
        with self._changed:
            while self._open and not self._over:
                longest = max(self._open, key=lambda one: one.pages if one.splits else 0)
                if longest.pages >= PAGES_BEFORE_SPLIT and longest.splits:
                    longest.splits -= 1
                    middle = between(longest.last, longest.until or self._prefix + bytes([_LAST + 1]))
                    if middle is not None:
                        upper = _Range(middle, longest.until)
                        longest.until = middle
                        self._open.append(upper)
                        return upper
                    longest.splits = 0
                    continue
                self._changed.wait(1.0)
        return None


def _cut(page: Page, after: bytes, until: bytes | None) -> Page:
    """What lies in a range, and nothing that another one lists."""
    first = bisect_right(page.keys, after)
    last = len(page.keys) if until is None else bisect_right(page.keys, until)
    if (first, last) == (0, len(page.keys)):
        return page
    kept = slice(first, max(first, last))
    return Page(page.keys[kept], page.sizes[kept], page.modified_s[kept], page.tags[kept], page.cold)


def between(low: bytes, high: bytes) -> bytes | None:
    """A key in the middle of two, by its first letters, in ASCII where they differ; None where none is near."""
    if low >= high:
        return None
    same = 0
    while same < min(len(low), len(high)) and low[same] == high[same]:
        same += 1
    top = high[same] if same < len(high) else 0
    for place in range(same, len(low) + 1):
        bottom = low[place] if place < len(low) else _FIRST - 1
        middle = (bottom + min(top, _LAST + 1)) // 2
        if bottom < middle < top and _FIRST <= middle <= _LAST and _is_text(low[:place]):
            return low[:place] + bytes([middle])
        top = _LAST + 1  # from here on every letter is below `high`
    return None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
