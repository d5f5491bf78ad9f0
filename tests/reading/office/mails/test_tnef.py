"""What Outlook has packed into a mail is read as if it stood in it."""

from __future__ import annotations

import struct
from email.message import EmailMessage

import pytest

from tests.office_files import read_bytes


def mail(text: str = "Hello,\nsee below.\n") -> EmailMessage:
    made = EmailMessage()
    made["Subject"] = "Offer"
    made.set_content(text)
    return made


def tnef(*attributes: tuple[int, bytes]) -> bytes:
    """What Outlook packs: attributes with their names, kinds and lengths before them and sums behind."""
    packed = [struct.pack("<BHHI", 1, name, 6, len(value)) + value + b"\0\0" for name, value in attributes]
    return b"\x78\x9f\x3e\x22\1\0" + b"".join(packed)


def properties(*named: tuple[int, int, bytes]) -> bytes:
    """(number, kind, value) of each; those from 0x8000 on get a name of text."""
    made = struct.pack("<I", len(named))
    for number, kind, value in named:
        made += struct.pack("<HH", kind, number)
        if number >= 0x8000:
            made += b"\0" * 16 + struct.pack("<II", 1, 6) + "abc".encode("utf-16-le") + b"\0\0"
        if kind in (0x1E, 0x1F, 0x102, 0x0D):
            made += struct.pack("<II", 1, len(value))
        made += value + b"\0" * (-len(value) % 4)
    return made


PACKED_FILE = (
    (0x9002, b"\0" * 14),
    (0x8010, b"SHORT~1.CSV\0"),
    (0x800F, b"Part,Torque\nBolt,12\n"),
    (0x9005, properties((0x3707, 0x1F, "Größen.csv".encode("utf-16-le")))),
)
PICTURE = ((0x9002, b""), (0x800F, b"png"), (0x9005, properties((0x3707, 0x1E, b"a.png"), (0x3712, 0x1E, b"cid"))))
WORDS = (0x9003, properties((0x8001, 0x03, b"\1\0\0\0"), (0x0E08, 0x14, b"\1" * 8), (0x1000, 0x1E, b"Gr\xfc\xdfe\0")))
PAGE_WORDS = (0x9003, properties((0x1013, 0x102, "<meta charset=utf-8><p>Gr\u00fc\u00dfe".encode())))


@pytest.mark.parametrize("body", [WORDS, PAGE_WORDS, (0x800C, b"Gr\xfc\xdfe\0")])
def test_what_outlook_has_packed_is_read_as_the_mail_itself(body: tuple[int, bytes]) -> None:
    made = mail("\n")
    data = tnef((0x9007, struct.pack("<II", 1252, 0)), body, *PICTURE, *PACKED_FILE)
    made.add_attachment(data, "application", "ms-tnef", filename="winmail.dat")
    document = read_bytes(made.as_bytes(), "a.eml")
    assert document.text == "Subject: Offer\n\nGrüße\n\nAttachments: Größen.csv"
    assert document.members == (("Größen.csv", b"Part,Torque\nBolt,12\n"),)


def test_what_outlook_has_packed_does_not_say_the_text_twice() -> None:
    made = mail("Hello,\nsee below.\n")
    made.add_attachment(tnef(WORDS, *PACKED_FILE), "application", "octet-stream", filename="WINMAIL.DAT")
    text = read_bytes(made.as_bytes(), "a.eml").text
    assert text == "Subject: Offer\n\nHello,\nsee below.\n\nAttachments: Größen.csv"


@pytest.mark.parametrize("cut", [3, 7, 60, 100, 150])
def test_what_outlook_has_packed_may_be_torn(cut: int) -> None:
    made = mail()
    data = tnef(*PACKED_FILE, WORDS)[:-cut]
    made.add_attachment(data, "application", "ms-tnef", filename="winmail.dat")
    assert read_bytes(made.as_bytes(), "a.eml").text.startswith("Subject: Offer\n\nHello,\nsee below.")
    made = mail()
    made.add_attachment(b"no TNEF", "application", "ms-tnef", filename="winmail.dat")
    assert read_bytes(made.as_bytes(), "a.eml").text.endswith("Attachments: winmail.dat")


NOON = 133_590_384_000_000_000
HEAD = "Subject: Grüße\nFrom: Jörg <joerg@example.org>\nTo: Sales\nDate: 2024-05-01 12:00+00:00"
INNER = (
    (0x8004, b"Gr\xfc\xdfe\0"),
    (
        0x9003,
        properties(
            (0x0C1A, 0x1F, "Jörg".encode("utf-16-le")),
            (0x0C1F, 0x1E, b"joerg@example.org\0"),
            (0x0E04, 0x1E, b"Sales\0"),
            (0x0039, 0x40, struct.pack("<Q", NOON)),
            (0x1000, 0x1E, b"It leaks.\0"),
        ),
    ),
)
MESSAGE_CLASS_ID = bytes.fromhex("0703020000000000c000000000000046")


def inside(*attributes: tuple[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    """A message as a file of another one."""
    content = (0x3701, 0x0D, MESSAGE_CLASS_ID + tnef(*attributes))
    return (0x9002, b"\0" * 14), (0x8010, b"Gr\xfc\xdfe\0"), (0x9005, properties(content))


def test_a_message_inside_is_read_with_its_head_and_its_files() -> None:
    made = mail()
    deepest = inside((0x8004, b"Deepest\0"), (0x800C, b"Drip.\0"))
    data = tnef(WORDS, *inside(*INNER, *PACKED_FILE, *deepest))
    made.add_attachment(data, "application", "ms-tnef", filename="winmail.dat")
    document = read_bytes(made.as_bytes(), "a.eml")
    assert document.text == (
        f"Subject: Offer\n\nHello,\nsee below.\n\nMessage inside:\n{HEAD}\n\nIt leaks.\n\n"
        "Message inside:\nSubject: Deepest\n\nDrip.\n\nAttachments: Größen.csv"
    )
    assert document.members == (("Größen.csv", b"Part,Torque\nBolt,12\n"),)


def test_the_head_of_a_message_inside_may_stand_in_attributes_alone() -> None:
    made = mail()
    sender = struct.pack("<HHHH", 4, 40, 6, 23) + b"J\xf6rg\0\0SMTP:joerg@example.org\0\0"
    rows = [
        properties((0x0C15, 0x03, b"\1\0\0\0"), (0x3001, 0x1E, b"Sales\0")),
        properties((0x0C15, 0x03, b"\2\0\0\0"), (0x3001, 0x1E, b"Ada\0")),
        properties((0x0C15, 0x03, b"\3\0\0\0"), (0x3001, 0x1E, b"SECRET\0")),
    ]
    attributes = [
        (0x8004, b"Gr\xfc\xdfe\0"),
        (0x8000, sender),
        (0x8005, struct.pack("<7H", 2024, 5, 1, 12, 0, 0, 3)),
        (0x9004, struct.pack("<I", len(rows)) + b"".join(rows)),
        (0x800C, b"It leaks.\0"),
    ]
    made.add_attachment(tnef(*inside(*attributes)), "application", "ms-tnef", filename="winmail.dat")
    head = HEAD.replace("To: Sales", "To: Sales\nCc: Ada")
    assert read_bytes(made.as_bytes(), "a.eml").text == (
        f"Subject: Offer\n\nHello,\nsee below.\n\nMessage inside:\n{head.replace('+00:00', '')}\n\nIt leaks."
    )


def test_messages_inside_messages_end() -> None:
    made, packed = mail(), ((0x800C, b"Drip.\0"),)
    for _ in range(60):
        packed = inside(*packed)
    made.add_attachment(tnef(*packed), "application", "ms-tnef", filename="winmail.dat")
    assert read_bytes(made.as_bytes(), "a.eml").text.startswith("Subject: Offer\n\nHello,")


def test_a_broken_text_in_what_outlook_has_packed_costs_only_itself() -> None:
    made, noise = mail(), bytes(range(32)) * 20 + b"\0\1" * 200 + b"x"
    too_deep = struct.pack("<IIII", 30_016, 30_000, 0x414C454D, 0) + b"{" * 30_000
    for body in (
        (0x800C, noise),
        (0x9003, properties((0x1013, 0x102, noise))),
        (0x9003, properties((0x1009, 0x102, too_deep))),
    ):
        made = mail("\n")
        data = tnef(body, (0x9002, b""), (0x8010, noise), *PACKED_FILE[2:])
        made.add_attachment(data, "application", "ms-tnef", filename="winmail.dat")
        assert read_bytes(made.as_bytes(), "a.eml").text.endswith("Attachments: Größen.csv")
