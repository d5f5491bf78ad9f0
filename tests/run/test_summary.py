"""What a run reports about the files that it did not read."""

from __future__ import annotations

from embedcli.records import SKIP_REASONS
from embedcli.report import skipped_line


def test_skipped_files_are_counted_by_kind() -> None:
    assert skipped_line({}) == ""
    assert skipped_line({"not_text": {".png": 40, ".exe": 2}, "empty": {".txt": 1}}) == "43 skipped: 42 binary, 1 empty"
    assert skipped_line({"unsupported": {".doc": 6}, "needs_extra": {".docx": 40}}) == (
        "46 skipped: 40 .docx need the extra office, 6 .doc unsupported"
    )


def test_of_many_kinds_of_skipped_files_the_commonest_are_named() -> None:
    archives = {f".a{n}": n for n in range(1, 9)} | {"no suffix": 1_000}
    assert skipped_line({"archive": archives}) == (
        "1,036 skipped: 1,000 no suffix archived, 8 .a8 archived, 7 .a7 archived, 6 .a6 archived, 5 .a5 archived,"
        " 10 other archived"
    )


def test_every_reason_for_which_a_file_is_skipped_has_its_words() -> None:
    assert {reason for reason in SKIP_REASONS if skipped_line({reason: {".x": 1}}).endswith(": ")} == set()
