"""Requests take turns, a row comes once, and what nobody waits for is forgotten."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from embedcli.engines.feeder import Feeder
from embedcli.serving.waiting import Book, Request

VECTOR = np.ones(2, np.float32)


class Noted:
    """In place of a Feeder: notes the rows in the order in which they come."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.keys: list[bytes] = []

    def add(self, key: bytes, ids: np.ndarray) -> None:
        self.rows.append(int(ids[0]))
        self.keys.append(key)


def request(*numbers: int) -> Request:
    rows = [np.full(10, number, np.uint32) for number in numbers]
    return Request(rows, cast(Any, None), [None] * len(rows), 10 * len(rows), lacks=len(rows))


def filled(book: Book, feeder: Noted, *requests: Request) -> None:
    with book.lock:
        for one in requests:
            book.add(one)
        book.fill(cast(Feeder, feeder))


def book_of(ahead_tokens: int) -> Book:
    book = Book()
    book.ahead_tokens = ahead_tokens
    return book


def test_a_single_text_does_not_wait_for_a_list_of_thousands() -> None:
    book, feeder = book_of(30), Noted()
    single = request(5_000)
    filled(book, feeder, request(*range(2_000)))
    filled(book, feeder, single)
    assert feeder.rows == [0, 1, 2], "no more than is to be sorted by length"
    assert book.take([(feeder.keys[0], VECTOR), (feeder.keys[1], VECTOR)]) == []
    filled(book, feeder)
    assert sorted(feeder.rows[3:]) == [3, 5_000]
    assert book.take([(key, VECTOR) for key in feeder.keys[2:]]) == [single]


def test_a_row_that_several_wait_for_is_sent_once() -> None:
    book, feeder = book_of(1_000), Noted()
    one, other = request(1, 2, 1), request(1)
    filled(book, feeder, one, other)
    assert sorted(feeder.rows) == [1, 2]
    assert set(map(id, book.take([(key, VECTOR) for key in feeder.keys]))) == {id(one), id(other)}
    assert all(answer is VECTOR for answer in [*one.answers, *other.answers])


def test_what_a_client_left_behind_is_not_sent_and_no_longer_counted() -> None:
    book, feeder = book_of(20), Noted()
    leaving, staying = request(*range(100)), request(7_000)
    filled(book, feeder, leaving, staying)
    sent = list(feeder.keys)
    book.forget(leaving)
    assert book.tokens == 10
    done = book.take([(key, VECTOR) for key in sent])
    filled(book, feeder)
    assert staying in (*done, *book.take([(key, VECTOR) for key in feeder.keys[len(sent) :]]))
    assert len(feeder.rows) <= 3 and 7_000 in feeder.rows
