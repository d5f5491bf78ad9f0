"""Texts come out of a stream in their order, whatever its blocks are; what is no text keeps its place."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcli.errors import InputError
from embedcli.pipes import texts as module
from embedcli.pipes.texts import Ahead, Form, Text, texts


def in_blocks(data: bytes, sizes: list[int]) -> Callable[[int], bytes]:
    """A stream whose reads bring so many bytes each, over and over."""
    stream, turns = io.BytesIO(data), iter(sizes * (len(data) + 1))
    return lambda most: stream.read(min(most, next(turns)))


def read(data: bytes, form: Form, sizes: list[int] | None = None) -> list[Text]:
    return [text for batch in texts(in_blocks(data, sizes or [1 << 16]), form, source="") for text in batch]


def contents(data: bytes, form: Form) -> list[tuple[int, str | None, str]]:
    return [(text.number, text.text, text.problem) for text in read(data, form)]


def test_a_line_is_a_text_with_or_without_a_last_newline() -> None:
    for data in (b"one\ntwo\r\n\nvier \xc3\xa4", b"one\ntwo\r\n\nvier \xc3\xa4\n"):
        assert contents(data, Form()) == [(1, "one", ""), (2, "two", ""), (3, "", ""), (4, "vier ä", "")]
    assert contents(b"", Form()) == []


def test_texts_that_end_with_nul_may_have_lines_of_their_own() -> None:
    assert contents(b"one\nmore\r\0two\0", Form(null=True)) == [(1, "one\nmore\r", ""), (2, "two", "")]


def test_a_byte_order_mark_is_no_part_of_the_first_text() -> None:
    assert contents(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", Form()) == [(1, "one", ""), (2, "\ufefftwo", "")]
    assert contents(b'\xef\xbb\xbf{"t":"one"}', Form(field="t")) == [(1, "one", "")]


def test_what_is_no_text_keeps_its_place() -> None:
    assert contents(b"one\n\xff\xfe\nthree", Form()) == [(1, "one", ""), (2, None, "not UTF-8"), (3, "three", "")]


def test_a_text_without_end_is_let_go_and_the_next_one_is_read() -> None:
    form = Form(most_bytes=10)
    data = b"0123456789\n0123456789a\nshort\n" + b"x" * 100 + b"\nlast\n" + b"y" * 11
    for sizes in ([1], [7], [1000]):
        found = [text.text for text in read(data, form, sizes)]
        assert found == ["0123456789", None, "short", None, "last", None]


def test_the_memory_of_a_text_without_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte without a newline, of which no more than a block is kept."""
    import tracemalloc

    block, left = b"x" * module.READ_BYTES, iter(range(1 << 14))
    tracemalloc.start()
    ((text,),) = texts(lambda _: block if next(left, None) is not None else b"", Form(most_bytes=1 << 20), source="")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text.problem == "too large: more than 1 MiB" and peak < 4 << 20


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON: "),
        (b'["a"]', "not JSON: it is not an object"),
        (b'{"text":"\xff"}', "not JSON: "),
        (b'{"text":"\\ud800"}', "not JSON: "),
        (b"[" * 100_000, "not JSON: "),
        (b'{"body":"a"}', "no text: the field `text` is missing"),
        (b'{"text":null}', "no text: the field `text` is not text"),
        (b'{"text":7}', "no text: the field `text` is not text"),
    ],
)
def test_a_line_that_is_no_record_has_a_problem_of_its_own(line: bytes, problem: str) -> None:
    first, middle, last = read(
        b'{"text":"a","id":1}\n' + line + b'\n{"id":"x","text":"b","more":2}', Form(field="text")
    )
    assert (first.text, first.id, last.text, last.id) == ("a", 1, "b", "x")
    assert middle.text is None and middle.problem.startswith(problem) and middle.number == 2


def test_empty_lines_among_json_lines_are_no_records_but_count() -> None:
    assert contents(b'\n{"t":"a"}\n \r\n{"t":"b"}\n', Form(field="t")) == [(2, "a", ""), (4, "b", "")]


@given(
    pieces=st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", codec="utf-8"), max_size=9), min_size=1),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
)
def test_the_blocks_of_a_stream_change_nothing(pieces: list[str], sizes: list[int]) -> None:
    data = "\n".join([*pieces, ""]).encode()
    assert [text.text for text in read(data, Form(), sizes)] == pieces


def test_files_are_read_one_after_the_other_and_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{name}1\n{name}2")
    ahead = Ahead([str(tmp_path / "a"), str(tmp_path / "b")], Form())
    found: list[Text] = []
    while not ahead.done:
        found += ahead.get(1.0)
    assert [(text.source[-1], text.number, text.text) for text in found] == [
        ("a", 1, "a1"),
        ("a", 2, "a2"),
        ("b", 1, "b1"),
        ("b", 2, "b2"),
    ]


def test_a_file_that_cannot_be_read_is_an_error_before_any_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    for path, problem in ((tmp_path / "nosuch", "there is no such file"), (tmp_path, "it is a folder")):
        with pytest.raises(InputError, match=f"cannot read `{path}`: {problem}"):
            Ahead([str(tmp_path / "a"), str(path)], Form())


def test_a_stream_that_breaks_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    """What /proc/self/mem says to a read of its first byte is what a disk says that fails."""
    ahead = Ahead(["/proc/self/mem"], Form())
    with pytest.raises(InputError, match="cannot read `/proc/self/mem`: Input/output error"):
        ahead.get(5.0)
