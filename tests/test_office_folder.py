"""A company's folder through a whole run: every file is read, or told by name, and no rubbish becomes a chunk."""

from __future__ import annotations

import base64
import random
import re

from embedcli.records import SKIP_REASONS
from tests.office_files import zipped
from tests.ole_files import compound, workbook
from tests.reading.test_broken_files import MAKERS
from tests.workshop import Workshop, words

DATA = base64.b64encode(random.Random(3).randbytes(9_000))
NOT_READ = {
    "old.doc": (compound({"WordDocument": b"x" * 5_000}), "unsupported"),
    "old.ppt": (compound({"PowerPoint Document": b"x" * 5_000}), "unsupported"),
    "secret.docx": (compound({"EncryptedPackage": b"x" * 5_000}), "password"),
    "secret.xls": (workbook([["a", 1.0]], encrypted=bytes(6)), "password"),
    "files.zip": (zipped({"a.txt": "text"}), "archive"),
    "half.xlsx": (MAKERS["a.xlsx"]()[:2_000], "damaged"),
}
RUBBISH = re.compile(
    r"</?(?:p|div|span|w:\w+|a:\w+)\b|[A-Za-z0-9+/]{200}|\\(?:par|rtf1|fonttbl)|font-family|Content-Transfer"
)


def test_every_format_is_read_and_what_is_not_is_told_by_name(shop: Workshop) -> None:
    for name, make in MAKERS.items():
        shop.write(name, make())
    for name, (data, _) in NOT_READ.items():
        shop.write(name, data)
    shop.write("dump.txt", words(40).encode() + DATA + b"\n" + words(40).encode())
    summary = shop.ingest()
    found = {path: (row["status"], row["reason"]) for path, row in shop.documents().items()}
    assert {name: found[name] for name in MAKERS} == dict.fromkeys(MAKERS, ("indexed", None))
    assert {name: found[name][1] for name in NOT_READ} == {name: reason for name, (_, reason) in NOT_READ.items()}
    assert found["dump.txt"] == ("partial", "data_left_out")
    assert summary.skipped == {"archive": {".zip": 1}, "unsupported": {".doc": 1, ".ppt": 1}}
    assert set(summary.skipped) <= SKIP_REASONS
    for row in shop.rows():
        assert not RUBBISH.search(row["text"]), (row["path"], row["text"])


def test_slides_and_sheets_and_headings_are_columns_of_the_rows(shop: Workshop) -> None:
    for name in ("a.pptx", "a.xlsx", "a.docx"):
        shop.write(name, MAKERS[name]())
    shop.ingest()
    seen = {(row["path"], row["page_start"], row["section"]) for row in shop.rows()}
    assert {("a.pptx", 1, "Pump"), ("a.xlsx", None, "Sheet"), ("a.docx", None, "Install")} <= seen
