"""A mail is read as the person who gets it sees it."""

from __future__ import annotations

import base64
import mailbox
import random
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest

from embedcli.errors import UnreadableSource
from embedcli.records import Document
from tests.office_files import read_bytes

HEAD = (
    "Subject: Offer for 3 pumps\nFrom: Jörg Müller <joerg@example.org>\nTo: sales@example.org\n"
    "Date: 2024-05-01 10:30+02:00"
)


def mail(text: str | None = "Hello,\nsee below.\n", subject: str = "Offer for 3 pumps") -> EmailMessage:
    made = EmailMessage()
    made["Subject"] = subject
    made["From"] = "Jörg Müller <joerg@example.org>"
    made["To"] = "sales@example.org"
    made["Date"] = "Wed, 01 May 2024 10:30:00 +0200"
    if text is not None:
        made.set_content(text, charset="utf-8", cte="base64")
    return made


def read_mail(made: EmailMessage, name: str = "a.eml") -> Document:
    return read_bytes(made.as_bytes(), name)


def raw(*lines: str, body: str | bytes = "Text") -> Document:
    body = body if isinstance(body, bytes) else body.encode()
    return read_bytes("\r\n".join(lines).encode() + b"\r\n\r\n" + body, "a.eml")


def test_the_head_is_decoded_and_the_subject_is_the_title() -> None:
    document = read_mail(mail())
    assert document.title == "Offer for 3 pumps"
    assert document.text == f"{HEAD}\n\nHello,\nsee below."


def test_it_is_known_by_its_content_in_a_maildir() -> None:
    assert read_mail(mail(), "1714.M1P2.host:2,S").text == read_mail(mail()).text == read_mail(mail(), "1714").text


@pytest.mark.parametrize("plain", ["", " \n", "This mail needs a program that shows pages.", "--\nList footer"])
def test_an_empty_plain_part_or_a_stub_does_not_win(plain: str) -> None:
    made = mail(plain or "\n")
    made.add_alternative("<p>The <b>whole</b> text of the offer, with all of its conditions.</p>" * 3, subtype="html")
    assert read_mail(made).text.removeprefix(HEAD).strip().startswith("The whole text of the offer")
    assert plain.strip() == "" or plain not in read_mail(made).text


def test_a_plain_part_that_says_as_much_is_read_with_its_marks_of_quotes() -> None:
    made = mail("Yes, we do.\n\n> Do you sell pumps?\n")
    made.add_alternative("<p>Yes, we do.</p><blockquote>Do you sell pumps?</blockquote>", subtype="html")
    assert read_mail(made).text.endswith("Yes, we do.\n\n> Do you sell pumps?")


def test_a_page_with_a_table_wins_and_its_pictures_are_no_files() -> None:
    made = mail("Part Price Bolt 12 Nut 13")
    rows = "<tr><td>Part<td>Price<tr><td>Bolt<td>12<tr><td>Nut<td>13"
    made.add_alternative(f"<table>{rows}</table><img src=cid:x>", subtype="html")
    made.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<x>")
    assert read_mail(made).text.removeprefix(HEAD) == "\nPart | Price\nBolt | 12\nNut | 13"


def test_a_list_footer_stands_behind_the_page_that_it_was_put_to() -> None:
    made = mail(None)
    made.set_content("<p>The text</p>", subtype="html")
    made.make_mixed()
    footer = EmailMessage()
    footer.set_content("List footer")
    made.attach(footer)
    assert read_mail(made).text.removeprefix(HEAD).split() == ["The", "text", "List", "footer"]


def test_attachments_are_named_and_can_be_had() -> None:
    made = mail()
    made.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="Angebot für Müller.pdf")
    made.add_attachment("id,price\n1,2\n", subtype="csv", filename="prices.csv")
    made.add_attachment(b"BASE64" * 5_000, maintype="image", subtype="png")
    document = read_mail(made)
    assert document.text.endswith("see below.\n\nAttachments: Angebot für Müller.pdf, prices.csv, attachment.png")
    found = document.members
    assert [name for name, _ in found] == ["Angebot für Müller.pdf", "prices.csv", "attachment.png"]
    assert found[0][1] == b"%PDF-1.7" and found[1][1].replace(b"\r", b"") == b"id,price\n1,2\n"


def test_a_mail_that_is_a_file_names_it() -> None:
    document = raw("Subject: Scan", "Content-Type: application/pdf; name=scan.pdf", body="JVBERi0=")
    assert document.text == "Subject: Scan\n\nAttachments: scan.pdf"


def test_messages_inside_a_message_are_read_with_their_heads() -> None:
    made = mail("See the complaint.")
    made.add_attachment(mail("It leaks.", "Complaint"))
    text = read_mail(made).text
    assert text.startswith(f"{HEAD}\n\nSee the complaint.\n\nMessage inside:\nSubject: Complaint\n")
    assert text.endswith("It leaks.")
    bare = raw("Subject: Fwd", "Content-Type: message/rfc822", body="Subject: Inner\r\n\r\nIts text")
    assert bare.text == "Subject: Fwd\n\nMessage inside:\nSubject: Inner\n\nIts text"


@pytest.mark.parametrize(
    ("charset", "encoding", "text"),
    [
        ("iso-8859-1", "cp1252", "5 € “für” Sie"),
        ("gb2312", "gb18030", "联通 \u4e02"),
        ("unknown-8bit", "utf-8", "für Müller"),
        ("x-nonsense", "cp1251", "Насос не работает, пришлите мастера"),
        ("utf-8", "cp1252", "Für Müller, Grüße aus Köln"),
    ],
)
def test_a_charset_that_is_unknown_or_wrong_does_not_lose_the_text(charset: str, encoding: str, text: str) -> None:
    document = raw("Subject: x", f"Content-Type: text/plain; charset={charset}", body=text.encode(encoding))
    assert document.text == f"Subject: x\n\n{text}"


def test_encoded_words_raw_bytes_and_folded_headers_are_decoded() -> None:
    document = raw(
        "Subject: =?utf-8?q?Gr=C3=BC=C3?= =?utf-8?q?=9Fe?= =?iso-8859-1?b?YXVzIEv2bG4=?=\r\n and more",
        "From: Jürgen <j@example.org>",
        "To: =?x-none?q?abc?= <a@example.org>",
        "Date: yesterday",
    )
    assert document.text == (
        "Subject: Grüßeaus Köln and more\nFrom: Jürgen <j@example.org>\nTo: abc <a@example.org>\n"
        "Date: yesterday\n\nText"
    )


def test_flowed_lines_are_joined() -> None:
    body = "This is one \r\nline.\r\n> and this \r\n> a quote.\r\n\r\n From here.\r\n-- \r\nAnna\r\n"
    document = raw("Subject: x", "Content-Type: text/plain; format=flowed", body=body)
    assert document.text == "Subject: x\n\nThis is one line.\n> and this a quote.\n\nFrom here.\n-- \nAnna"


def test_a_calendar_alone_is_read_as_its_event() -> None:
    event = (
        "BEGIN:VEVENT\r\nSUMMARY;LANGUAGE=en:Pump\r\n  check\\, yearly\r\nDTSTART;TZID=X:20240501T100000\r\nUID:1\r\n"
    )
    document = raw("Subject: x", "Content-Type: text/calendar", body=event)
    assert document.text == "Subject: x\nSummary: Pump check, yearly\nDtstart: 20240501T100000"


@pytest.mark.parametrize("zone", ["Europe/Berlin", '"(UTC+01:00) Amsterdam, Berlin"'])
def test_an_event_says_nothing_of_clocks_and_reminders(zone: str) -> None:
    lines = (
        "BEGIN:VCALENDAR", "BEGIN:VTIMEZONE", f"TZID:{zone}", "BEGIN:STANDARD", "DTSTART:16010101T030000",
        "END:STANDARD", "END:VTIMEZONE", "BEGIN:VEVENT", "SUMMARY:Maintenance", f"DTSTART;TZID={zone}:20240506T090000",
        "BEGIN:VALARM", "DESCRIPTION:REMINDER", "END:VALARM", "LOCATION:Hall 3", "END:VEVENT", "END:VCALENDAR",
    )  # fmt: skip
    data = b"Content-Type: text/calendar; charset=utf-8\r\n\r\n" + "\r\n".join(lines).encode()
    assert read_bytes(data, "a.eml").text == "Summary: Maintenance\nDtstart: 20240506T090000\nLocation: Hall 3"


def multipart(kind: str, *parts: str) -> bytes:
    body = "".join(f"--B\n{part}\n" for part in parts)
    return f"Content-Type: multipart/{kind}; boundary=B\n\n{body}--B--\n".encode()


def test_the_part_that_a_mail_names_as_its_root_is_read_wherever_it_stands() -> None:
    picture = "Content-Type: image/png\nContent-ID: <logo>\n\nx"
    page = "Content-Type: text/html\nContent-ID: <root>\n\n<p>The offer"
    assert read_bytes(multipart('related; start="<root>"', picture, page), "a.eml").text == "The offer"
    assert read_bytes(multipart("related", page, picture), "a.eml").text == "The offer"


def test_a_message_inside_that_is_encoded_like_a_file_is_read() -> None:
    inner = base64.encodebytes(mail("Inner words\n").as_bytes()).decode()
    outer = multipart("mixed", f"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{inner}")
    assert read_bytes(outer, "a.eml").text == f"Message inside:\n{HEAD}\n\nInner words"


def element(tag: int, *inside: bytes) -> bytes:
    value = b"".join(inside)
    size = len(value).to_bytes(2, "big")
    return bytes([tag]) + (b"\x82" + size if len(value) > 127 else size[1:]) + value


def endless(tag: int, *inside: bytes) -> bytes:
    return bytes([tag, 0x80]) + b"".join(inside) + b"\0\0"


OCTETS, PIECES, NUMBER, NAME, SET, SEQUENCE, WRAPPED = 0x04, 0x24, 0x02, 0x06, 0x31, 0x30, 0xA0


def signed(content: bytes, made: Callable[..., bytes], name: str = "2a864886f70d010702") -> bytes:
    text = element(OCTETS, content)
    if made is endless:
        text = endless(PIECES, element(OCTETS, content[:30]), element(OCTETS, content[30:]))
    inner = made(SEQUENCE, element(NAME, bytes.fromhex("2a864886f70d010701")), made(WRAPPED, text))
    data = made(SEQUENCE, element(NUMBER, b"\1"), element(SET), inner, element(SET, b"signature"))
    return made(SEQUENCE, element(NAME, bytes.fromhex(name)), made(WRAPPED, data))


@pytest.mark.parametrize("made", [element, endless])
def test_what_is_packed_with_its_signature_is_read(made: Callable[..., bytes]) -> None:
    packed = mail(None)
    packed.add_attachment(
        signed(mail("Signed words. " * 20).as_bytes(), made), "application", "pkcs7-mime", filename="smime.p7m"
    )
    packed.replace_header("Content-Type", "multipart/mixed")
    assert read_bytes(packed.as_bytes(), "a.eml").text.endswith("Signed words. " * 19 + "Signed words.")


WHOLE = signed(b"x" * 300, endless)


@pytest.mark.parametrize("data", [WHOLE[:-1], WHOLE[:200], WHOLE[:4], b"\x30\x80" * 100_000, b"no BER", b""])
def test_a_broken_signature_costs_only_itself(data: bytes) -> None:
    packed = mail()
    packed.add_attachment(data, "application", "pkcs7-mime", filename="smime.p7m")
    assert read_bytes(packed.as_bytes(), "a.eml").text.startswith(f"{HEAD}\n\nHello,\nsee below.")


def test_an_encrypted_mail_is_password() -> None:
    for kind in ("multipart/encrypted; boundary=b", "application/pkcs7-mime; smime-type=enveloped-data"):
        with pytest.raises(UnreadableSource) as caught:
            raw("Subject: x", f"Content-Type: {kind}", body="--b\r\n\r\nVersion: 1\r\n--b--\r\n")
        assert caught.value.reason == "password"


def test_a_mail_of_apple_begins_with_its_length() -> None:
    data = mail().as_bytes()
    assert read_bytes(b"%d\n" % len(data) + data + b"<plist>SETTINGS</plist>", "1.emlx").text.endswith("see below.")


def test_a_mailbox_has_a_section_for_each_mail(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box.mbox")
    for subject in ("First", "Second"):
        box.add(mail("From here on\nit leaks.", subject))
    box.close()
    for name in ("box.mbox", "Inbox"):
        document = read_bytes((tmp_path / "box.mbox").read_bytes(), name)
        assert [path for _, path in document.sections] == ["First", "Second"]
        assert document.text.count("\n\nFrom here on\nit leaks.") == 2


def test_a_saved_page_is_read_as_the_page() -> None:
    made = EmailMessage()
    made["Subject"] = "Saved"
    made.set_content("<title>Pump</title><h1>The pump</h1>", subtype="html")
    made.add_related(b"\x89PNG", "image", "png", cid="<x>")
    document = read_bytes(made.as_bytes(), "a.mhtml")
    assert (document.text, document.title) == ("The pump", "Pump")


def export(*pages: str, head: str = "") -> bytes:
    """What a wiki or business software exports: pages in one file, with the name of an office file."""
    kind = "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n"
    parts = (f"{kind}Content-Location: file:///{page.partition('|')[0]}\n\n{page.partition('|')[2]}" for page in pages)
    return f"{head}MIME-Version: 1.0\n".encode() + multipart("related;\n\t", *parts)


@pytest.mark.parametrize("name", ["a.doc", "a.xls", "a.mht"])
def test_a_page_that_is_exported_as_an_office_file_is_read_as_the_page(name: str) -> None:
    data = export("a.htm|<title>Plan</title><p>Pr=C3=BCfen Sie die P=\numpe.", head="Subject: Exported\n")
    document = read_bytes(data, name)
    assert (document.text, document.title) == ("Prüfen Sie die Pumpe.", "Plan")


@pytest.mark.parametrize("first", ["<frameset><frame src=3D1.htm></frameset><noframes>SECRET", "<x:WorksheetSource>"])
def test_all_sheets_of_an_exported_workbook_are_read(first: str) -> None:
    table = "<table><tr><td>{}</td><td>{}</td></tr></table>"
    pages = (
        f"0.htm|{first}",
        f"1.htm|{table.format('Bolt', 5)}",
        f"2.htm|{table.format('Nut', 6)}",
        "tabstrip.htm|SECRET",
    )
    assert read_bytes(export(*pages), "a.xls").text == "Bolt | 5\nNut | 6"


def test_a_text_about_mails_in_an_office_file_is_a_text() -> None:
    text = "How to read a header:\n\nMIME-Version: 1.0\nContent-Type: text/html\n\n<p>Page"
    assert read_bytes(text.encode(), "a.doc").text == text


def test_torn_and_strange_mails_give_what_they_have() -> None:
    whole = mail("Text " * 100)
    whole.add_attachment(random.Random(1).randbytes(3_000), maintype="application", subtype="pdf", filename="a.pdf")
    data = whole.as_bytes()
    for end in range(200, len(data), 97):
        assert read_bytes(data[:end], "a.eml").text.startswith("Subject: Offer")
    assert raw("Subject: x", "Content-Type: multipart/mixed", body="no parts").text == "Subject: x\n\nno parts"
    assert raw("Subject: x", "Content-Type: text/plain", "Content-Transfer-Encoding: base64", body="!!").text == (
        "Subject: x"
    )


def test_messages_inside_messages_without_end_are_damaged() -> None:
    with pytest.raises(UnreadableSource) as caught:
        raw("Content-Type: message/rfc822", body="Content-Type: message/rfc822\r\n\r\n" * 5_000)
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("hostile", ["--b\r\n", "Content-Type: a/b; c=", "=?utf-8?q?", "\r\n", ">", " \r\n"])
def test_time_is_linear_in_hostile_mails(hostile: str) -> None:
    started = time.process_time()
    body = hostile * (200_000 // len(hostile))
    raw("Subject: " + "=?utf-8?q?a?= " * 2_000, "Content-Type: multipart/mixed; boundary=b", body=body)
    raw("Subject: x", "Content-Type: text/plain; format=flowed", body=body)
    assert time.process_time() - started < 30


@pytest.mark.parametrize("kind", ["delivery-status", "disposition-notification"])
def test_why_a_mail_could_not_be_delivered_is_read(kind: str) -> None:
    status = ["Reporting-MTA: dns; mx.example.org", "", "Final-Recipient: rfc822; ada@example.org", "Status: 5.1.1"]
    status = status if kind == "delivery-status" else [line for line in status if line]
    parts = ["--b", "", "Sorry.", "--b", f"Content-Type: message/{kind}", "", *status, "--b--"]
    document = raw("Subject: x", "Content-Type: multipart/report; boundary=b", body="\r\n".join(parts))
    lines = "Reporting-MTA: dns; mx.example.org\n\nFinal-Recipient: rfc822; ada@example.org\nStatus: 5.1.1"
    lines = lines if kind == "delivery-status" else lines.replace("\n\n", "\n")
    assert document.text == f"Subject: x\n\nSorry.\n\n{lines}"


def test_a_body_of_rich_text_is_read_without_its_marks() -> None:
    rich = raw("Subject: x", "Content-Type: text/rtf", body=r"{\rtf1 It {\b leaks}.\par Now.\par}")
    assert rich.text == "Subject: x\n\nIt leaks.\n\nNow."
    marked = "<bold>It</bold> <color><param>red</param>leaks</color> << 5\r\nnow.\r\n\r\nNext"
    for kind in ("enriched", "richtext"):
        enriched = raw("Subject: x", f"Content-Type: text/{kind}", body=marked)
        assert enriched.text == "Subject: x\n\nIt leaks < 5\nnow.\n\nNext"
    assert raw("Subject: x", "Content-Type: text/rtf", body="No rich text").text == "Subject: x\n\nNo rich text"
