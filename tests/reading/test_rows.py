"""What a reading process does with one source: it reads the file that has the stat of the walk, sends a heartbeat for
its chunks, and removes its spool."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcli.errors import UnreadableSource
from embedcli.models import resolve
from embedcli.reading.rows import Reading, ReadingWork, latin_share
from embedcli.records import Source, stat_of
from tests.workshop import words


@pytest.fixture
def work(tmp_path: Path) -> ReadingWork:
    folder = resolve.resolve("minilm", report=lambda _: None).folder
    made = ReadingWork(
        model_folder=folder, prompt="", max_tokens=16, overlap=0, keep_text=True, model_fingerprint="0" * 32,
        spool_folder=tmp_path,
    )  # fmt: skip
    made.start()
    return made


def task(path: Path) -> Source:
    return Source("root", path.name, str(path), stat_of(path.stat()))


def read(work: ReadingWork, path: Path, beat: Callable[[int], None]) -> Reading:
    """What was read of a file with nothing inside it."""
    (read,) = work(task(path), beat, with_forms=True)
    assert isinstance(read.own, Reading) and not read.members
    return read.own


def text_of(reading: Reading) -> str:
    return "".join(reading.table().column("text").to_pylist())


class Meddler:
    """A `beat` that does something to the file under its reader, at most so many times."""

    def __init__(self, act: Callable[[], None], times: int) -> None:
        self.act, self.left = act, times

    def __call__(self, page: int) -> None:
        if self.left:
            self.left -= 1
            self.act()


def grow(path: Path) -> Callable[[], None]:
    def act() -> None:
        with path.open("a") as file:
            file.write("and one more line\n")

    return act


def test_a_file_that_grew_once_under_its_reader_is_read_once_more_and_whole(work: ReadingWork, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(words(50))
    reading = read(work, path, Meddler(grow(path), 1))
    assert text_of(reading) == words(50) + "and one more line\n"
    assert reading.stat.size == path.stat().st_size


def test_a_file_that_grows_all_the_time_is_changed_while_reading(work: ReadingWork, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(words(50))
    with pytest.raises(UnreadableSource) as caught:
        work(task(path), Meddler(grow(path), 1_000), with_forms=True)
    assert caught.value.reason == "changed_while_reading"


def test_a_file_replaced_under_its_reader_is_read_as_it_was_opened(work: ReadingWork, tmp_path: Path) -> None:
    """The descriptor is the old file's: what stands at the path now is tomorrow's change."""
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text(words(50))
    other.write_text(words(50, 1))
    before = path.stat()
    reading = read(work, path, Meddler(lambda: os.replace(other, path), 1))
    assert text_of(reading) in (words(50), words(50, 1))
    assert (reading.stat.inode == before.st_ino) == (text_of(reading) == words(50))


def test_every_chunk_beats(work: ReadingWork, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(words(400))
    beats: list[int] = []
    assert len(beats) < read(work, path, beats.append).chunks <= len(beats)


@pytest.mark.parametrize(
    ("text", "share"), [("", 1.0), ("12 34", 1.0), ("abc где", 0.5), ("手册", 0.0), ("Tiếng Việt", 1.0)]
)
def test_the_share_of_latin_letters(text: str, share: float) -> None:
    assert latin_share(text) == share
