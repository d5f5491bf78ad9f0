"""Compound files: Outlook messages and old workbooks are read, encrypted files reported, old texts skipped by name."""

from __future__ import annotations

import random
import struct
import time

import pytest

from embedcli.errors import UnreadableSource
from embedcli.reading.office.mails.message import message_attachments
from embedcli.reading.office.ole import CompoundFile
from embedcli.reading.office.rtf import unpacked_rtf
from embedcli.records import SKIP_REASONS
from tests.office_files import read_bytes
from tests.ole_files import compound, message, workbook

HEAD = {"0037": "Offer for 3 pumps", "0C1A": "Jörg Müller", "5D01": "joerg@example.org", "0E04": "Sales"}
SENT = 133_590_330_000_000_000
TEXT_HEAD = "Subject: Offer for 3 pumps\nFrom: Jörg Müller <joerg@example.org>\nTo: Sales\nDate: 2024-05-01 10:30+00:00"


def attached(number: int, inside: dict[str, bytes]) -> dict[str, bytes]:
    return {f"__attach_version1.0_#{number:08X}/{name}": data for name, data in inside.items()}


def reason_of(data: bytes, name: str) -> str:
    with pytest.raises(UnreadableSource) as caught:
        read_bytes(data, name)
    return caught.value.reason


def test_a_message_has_a_head_a_body_and_the_names_of_its_files() -> None:
    streams = message({**HEAD, "1000": "Hello,\r\nsee below.\r\n"}, sent=SENT)
    streams |= attached(
        0, {"__substg1.0_3707001F": "Angebot.pdf".encode("utf-16-le"), "__substg1.0_37010102": b"%PDF-"}
    )
    picture = {"3707": "logo.png", "3712": "logo@x"}
    streams |= attached(1, {f"__substg1.0_{k}001F": v.encode("utf-16-le") for k, v in picture.items()})
    streams |= attached(1, {"__substg1.0_37010102": b"\x89PNG"})
    data = compound(streams)
    document = read_bytes(data, "a.msg")
    assert document.title == "Offer for 3 pumps"
    assert document.text == f"{TEXT_HEAD}\n\nHello,\nsee below.\n\nAttachments: Angebot.pdf"
    assert list(message_attachments(CompoundFile(data))) == [("Angebot.pdf", b"%PDF-")]


def test_a_message_inside_a_message_is_read_with_its_head() -> None:
    streams = message({"0037": "Outer", "1000": "See this."})
    inner = message({"0037": "Inner", "1000": "It leaks."})
    streams |= attached(0, {f"__substg1.0_3701000D/{name}": data for name, data in inner.items()})
    assert read_bytes(compound(streams), "a.msg").text == (
        "Subject: Outer\n\nSee this.\n\nMessage inside:\nSubject: Inner\n\nIt leaks."
    )


def test_the_files_of_a_message_inside_are_its_files_too() -> None:
    file = {"__substg1.0_3707001F": "a.csv".encode("utf-16-le"), "__substg1.0_37010102": b"Part,Torque\n"}
    inner = message({"0037": "Inner", "1000": "It leaks."}) | attached(0, file)
    streams = message({"0037": "Outer"}) | attached(0, {f"__substg1.0_3701000D/{key}": inner[key] for key in inner})
    streams |= attached(1, {**file, "__substg1.0_3707001F": "b.csv".encode("utf-16-le")})
    members = read_bytes(compound(streams), "a.msg").members
    assert members == (("a.csv", b"Part,Torque\n"), ("b.csv", b"Part,Torque\n"))


def packed(text: bytes) -> bytes:
    """As Outlook packs rich text, without a reference."""
    units = b"".join(b"\0" + text[n : n + 8] for n in range(0, len(text), 8))
    return struct.pack("<IIII", len(units) + 12, len(text), 0x75465A4C, 0) + units


def test_without_a_plain_body_the_page_or_the_rich_text_is_read() -> None:
    page = compound(message({"0037": "x"}, _10130102="<meta charset=cp1251><p>Насос</p>".encode("cp1251")))
    assert read_bytes(page, "a.msg").text == "Subject: x\n\nНасос"
    rich = compound(message({"0037": "x"}, _10090102=packed(rb"{\rtf1 It {\b leaks}.\par}")))
    assert read_bytes(rich, "a.msg").text == "Subject: x\n\nIt leaks."


def test_texts_in_a_code_page_are_decoded_by_it() -> None:
    streams = message({})
    streams["__substg1.0_0037001E"] = "Насос".encode("cp1251")
    streams["__properties_version1.0"] += struct.pack("<HHIQ", 3, 0x3FFD, 6, 1251)
    assert read_bytes(compound(streams), "a.msg").text == "Subject: Насос"


def test_an_old_workbook_is_read_as_any_other() -> None:
    data = workbook([["Part", "Torque"], ["Bolt", 12.0], ["Nut", 1.5]], hidden="Hidden")
    document = read_bytes(data, "a.xls")
    assert document.text == "Torques\nPart: Bolt; Torque: 12\nPart: Nut; Torque: 1.5"
    assert [path for _, path in document.sections] == ["Torques"]


def test_an_encrypted_office_file_is_password_whatever_its_name() -> None:
    data = compound({"EncryptionInfo": b"x" * 100, "EncryptedPackage": b"x" * 5_000})
    assert {reason_of(data, f"a.{suffix}") for suffix in ("docx", "xlsx", "pptx", "dat")} == {"password"}


@pytest.mark.parametrize(
    "how",
    [struct.pack("<HHH", 0, 0x1234, 0x5678), struct.pack("<HHH", 1, 1, 1) + bytes(48), struct.pack("<HHH", 1, 2, 2)],
    ids=["XOR", "RC4", "CryptoAPI"],
)
def test_an_old_workbook_with_a_password_is_password(how: bytes) -> None:
    assert reason_of(workbook([["Part", "Torque"], ["Bolt", 12.0]], encrypted=how), "a.xls") == "password"


def test_a_torn_workbook_is_not_taken_for_an_encrypted_one() -> None:
    torn = compound({"Workbook": struct.pack("<HH", 0x2F, 6) + bytes(5_000)})
    assert reason_of(torn, "a.xls") == "damaged"


@pytest.mark.parametrize("stream", ["WordDocument", "PowerPoint Document", "VisioDocument"])
def test_old_office_formats_are_skipped_by_that_name(stream: str) -> None:
    data = compound({stream: b"x" * 5_000, "ObjectPool/_1/Workbook": b"x" * 100})
    assert reason_of(data, "a.doc") == "unsupported"
    assert "unsupported" in SKIP_REASONS
    assert reason_of(compound({"Catalog": b"x" * 100}), "Thumbs.db") == "not_text"


def test_reading_a_torn_or_circular_file_ends() -> None:
    streams = message({**HEAD, "1000": "Hello " * 2_000}, sent=SENT)
    whole = compound(streams | attached(0, {"__substg1.0_37010102": b"x" * 10_000}))
    generator = random.Random(7)
    started = time.process_time()
    for _ in range(300):
        broken = bytearray(whole[: generator.randrange(8, len(whole))])
        for _ in range(generator.randrange(20)):
            broken[generator.randrange(8, len(broken))] = generator.choice([0, 1, 255, generator.randrange(256)])
        try:
            read_bytes(bytes(broken), "a.msg")
        except UnreadableSource as error:
            assert error.reason in ("damaged", "not_text", "empty")
    assert time.process_time() - started < 60


def test_packed_rich_text_that_refers_to_what_is_not_there_ends_there() -> None:
    whole = packed(rb"{\rtf1 It leaks")
    assert unpacked_rtf(whole) == rb"{\rtf1 It leaks"
    assert unpacked_rtf(whole[:16] + b"\x01\xff\xf0") == b""
