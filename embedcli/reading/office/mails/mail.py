"""Mails (.eml, .emlx, Maildir files), mailboxes (.mbox) and saved web pages (.mhtml) -> a Document. The door of email.

In: the bytes of a file. Out: a decoded head, the body that a person sees, messages inside a message, the names of
attachments, and the attached files themselves as its members; of a mailbox a section for each mail. Not here: pages
(html.py), reading attachments.
"""

from __future__ import annotations

import binascii
import email
import email.utils
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from email.message import Message
from typing import TypeAlias

from embedcli.errors import UnreadableSource
from embedcli.reading.office.html import add_page
from embedcli.reading.office.mails.tnef import Tnef, opened_tnef
from embedcli.reading.office.rtf import rtf_text
from embedcli.reading.text.blocks import LINE, PARAGRAPH, Blocks
from embedcli.reading.text.declared import decode_declared
from embedcli.records import Beat, Document

MOST_NESTING = 20
LEAST_PLAIN = 0.8

Mail: TypeAlias = "Message[str, str]"  # not to be subscripted when it runs

_HEAD = ("Subject", "From", "To", "Cc", "Date")
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_ENRICHED = re.compile(r"<<|<param>.*?</param>|</?[a-z-]+>", re.IGNORECASE | re.DOTALL)
_CELL = re.compile(r"<t[dh][\s>]", re.IGNORECASE)
_EVENT_LINE = re.compile(
    r"^(SUMMARY|DESCRIPTION|LOCATION|DTSTART|DTEND|ORGANIZER)(?:;(?:[^:\"\n]|\"[^\"\n]*\")*)?:(.*)$", re.M | re.I
)
_NO_EVENT = re.compile(r"^BEGIN:(VTIMEZONE|VALARM)\s*$.*?^END:\1\s*$", re.M | re.I | re.S)
"""What a calendar says beside its events: when clocks are changed, how somebody is reminded."""
_FRAMES = re.compile(r"<frameset\b", re.IGNORECASE)
_OF_SEVERAL = re.compile(rf"<x:WorksheetSource\b|{_FRAMES.pattern}", re.IGNORECASE)
_NOTICES = tuple(f"message/{kind}" for kind in ("delivery-status", "disposition-notification", "feedback-report"))
"""What programs say about mails, in headers alone."""
_PACKED = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_TNEF_TYPES = ("application/ms-tnef", "application/vnd.ms-tnef")
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_SEQUENCE, _PIECES, _UNTIL_ZEROS = 0x30, 0x24, 0x80
"""Of BER: the tags of a sequence and of text in pieces, and the length of what ends with two zero bytes."""
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From \S[^\r\n]*\r?\n(?=[!-9;-~]+:)")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_LENGTH_LINE = re.compile(rb"\d{1,12}[ \t]*\r?\n")
_ENCODED_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bq])\?([^?\n]*)\?=", re.IGNORECASE)
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD.pattern}(?:\s*{_ENCODED_WORD.pattern})*", re.IGNORECASE)
_SURROGATE = re.compile("[\udc80-\udcff]")


def read_mail(data: bytes, beat: Beat) -> Document:
    """The document in one mail. Raises UnreadableSource `password` where its text is encrypted."""
    message = _parsed(_without_length(data), beat)
    blocks = Blocks()
    writer = _Writer(blocks, beat)
    writer.message(message)
    if writer.is_encrypted:
        raise UnreadableSource("password", "an encrypted mail")
    document = blocks.document(title=_header(message, "Subject"))
    return replace(document, members=tuple(_attachments(message)))


def read_mailbox(data: bytes, beat: Beat) -> Document:
    """The document in a mailbox: a section for each mail, one after the other."""
    blocks = Blocks()
    starts = [match.start() for match in _FROM_LINE.finditer(data)]
    if not starts:
        raise UnreadableSource("damaged", "no mail inside")
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        raw = _QUOTED_FROM.sub(rb"\1", data[data.index(b"\n", start) + 1 : end])
        message = _parsed(raw, beat)
        blocks.heading(_header(message, "Subject") or "(no subject)", level=1)
        _Writer(blocks, beat, subject=False).message(message)
    return blocks.document()


def read_saved_page(data: bytes, beat: Beat) -> Document:
    """The document in a web page that a program saved with its pictures as one file.

    Other pages are read too where the first only names them, as the sheets of a workbook; not advertisements.
    """
    kinds = ("text/html", "application/xhtml+xml")
    pages = [part for part in _parsed(data, beat).walk() if part.get_content_type() in kinds]
    if not pages:
        raise UnreadableSource("damaged", "no page inside")
    blocks = Blocks()
    page = _text(pages[0])
    title = add_page(Blocks() if _FRAMES.search(page) else blocks, page, beat)
    for part in pages[1:] if _OF_SEVERAL.search(page) else []:
        if not part.get("Content-Location", "").lower().endswith("tabstrip.htm"):
            add_page(blocks, _text(part), beat)
    return blocks.document(title=title)


def _attachments(message: Mail) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each file attached to a mail, those of messages inside it too, in their order.

    What the body shows itself (its text, its pictures) is no attachment, nor is a message, whose text is part of the
    document. Names may be equal, blank ones are made up from the type.
    """
    for part in _files(message):
        content = part.get_payload(decode=True)
        yield _file_name(part), content if isinstance(content, bytes) else b""


def _parsed(data: bytes, beat: Beat) -> Mail:
    beat(0)
    try:
        message = email.message_from_bytes(data)
        beat(0)
        for part in message.walk():
            _unpack(part)
        _unpack_tnef(message, beat)
    except RecursionError:
        raise UnreadableSource("damaged", "messages inside messages without end") from None
    beat(0)
    return message


def _unpack(part: Mail) -> None:
    """Make a message inside that was encoded like a file, or text that was packed with its signature, a part like any
    other. What walks through the parts comes to it next."""
    kind, children = part.get_content_type(), _children(part)
    is_encoded = str(part.get("Content-Transfer-Encoding") or "").strip().lower() in ("base64", "quoted-printable")
    if kind == "message/rfc822" and is_encoded and len(children) == 1 and not children[0].keys():
        part.set_payload(children[0].get_payload())
        part.set_payload([email.message_from_bytes(_bytes_of(part))])
    elif kind in _PACKED and (content := signed_content(_bytes_of(part))):
        _replace_by(part, [email.message_from_bytes(content)])


def _unpack_tnef(message: Mail, beat: Beat) -> None:
    """Put what Outlook has packed into a `winmail.dat` in its place; the text only where the mail has no other."""
    packed = [part for part in message.walk() if _is_tnef(part)]
    has_text = bool(packed) and any(_is_shown(part) and _text(part).strip() for part in message.walk())
    for part in packed:
        found = opened_tnef(_bytes_of(part), beat)
        if inner := _parts_of(found, with_text=not has_text):
            _replace_by(part, inner)


def _replace_by(part: Mail, inner: Sequence[Mail]) -> None:
    """Let a part hold what was packed in it."""
    del part["Content-Type"], part["Content-Transfer-Encoding"], part["Content-Disposition"]
    part["Content-Type"] = "multipart/mixed"
    part.set_payload([*inner])


def _parts_of(found: Tnef, *, with_text: bool) -> list[Mail]:
    body = [("text/html", found.page), ("text/plain", found.text)] if with_text else []
    parts = [_made(f"{kind}; charset=utf-8", text.encode()) for kind, text in body if text][:1]
    parts += [_made("application/octet-stream", content, name) for name, content in found.files]
    return [*parts, *map(_message_of, found.messages)]


def _message_of(found: Tnef) -> Mail:
    whole: Mail = Message()
    whole["Content-Type"] = "message/rfc822"
    inner: Mail = Message()
    for name, value in found.head.items():
        inner[name] = value
    inner["Content-Type"] = "multipart/mixed"
    inner.set_payload([*_parts_of(found, with_text=True)])
    whole.set_payload([inner])
    return whole


def _is_tnef(part: Mail) -> bool:
    return part.get_content_type() in _TNEF_TYPES or _given_name(part).lower() == "winmail.dat"


def _made(kind: str, content: bytes, name: str = "") -> Mail:
    made: Mail = Message()
    made["Content-Type"] = kind
    made["Content-Transfer-Encoding"] = "base64"
    if name:
        made.add_header("Content-Disposition", "attachment", filename=("utf-8", "", name))
    made.set_payload(binascii.b2a_base64(content).decode())
    return made


def _bytes_of(part: Mail) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def signed_content(data: bytes) -> bytes:
    """What is signed in a message of S/MIME that holds it (CMS, RFC 5652); empty in one that is encrypted, or broken.

    The signature is the last part: ContentInfo > SignedData > EncapsulatedContentInfo > content. Any of them may say
    its length, or go on to two zero bytes, and the content may be cut into pieces.
    """
    try:
        info = _elements(_elements(data)[0][1])
        if info[0][1] != _SIGNED_DATA:
            return b""
        signed = _elements(_elements(info[1][1])[0][1])
        encapsulated = next(_elements(value) for tag, value in signed if tag == _SEQUENCE)
        tag, value = _elements(encapsulated[1][1])[0]
        return b"".join(piece for _, piece in _elements(value)) if tag == _PIECES else value
    except (IndexError, StopIteration, RecursionError):
        return b""


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """(tag, value) of each element of BER in a row."""
    found = []
    start = 0
    while start < len(data) and data[start : start + 2] != b"\0\0":
        tag, begin, end, start = _element(data, start)
        found.append((tag, data[begin:end]))
    return found


def _element(data: bytes, start: int) -> tuple[int, int, int, int]:
    """The tag of the element that begins there, where its value begins and ends, and where the next one begins."""
    tag, length, begin = data[start], data[start + 1], start + 2
    if length == _UNTIL_ZEROS:
        end = begin
        while data[end : end + 2] != b"\0\0":
            end = _element(data, end)[3]
        return tag, begin, end, end + 2
    if length > _UNTIL_ZEROS:
        size = length - _UNTIL_ZEROS
        length, begin = int.from_bytes(data[begin : begin + size]), begin + size
    return tag, begin, begin + length, begin + length


def _without_length(data: bytes) -> bytes:
    """Apple's .emlx begins with the number of bytes of the mail; behind it are settings."""
    found = _LENGTH_LINE.match(data)
    return data[found.end() : found.end() + int(found[0])] if found else data


class _Writer:
    """Adds messages to blocks."""

    def __init__(self, blocks: Blocks, beat: Beat, *, subject: bool = True) -> None:
        self._blocks, self._beat = blocks, beat
        self._head = _HEAD if subject else _HEAD[1:]
        self.is_encrypted = False

    def message(self, message: Mail, depth: int = 0) -> None:
        for name in self._head if depth == 0 else _HEAD:
            value = _date(message) if name == "Date" else _header(message, name)
            if value:
                self._blocks.add(f"{name}: {value}", gap=LINE)
        count = len(self._blocks)
        self._part(message, depth)
        names = [_file_name(part) for part in _files(message)] if depth == 0 else []
        self.is_encrypted = self.is_encrypted and len(self._blocks) == count
        if names and not self.is_encrypted:
            self._blocks.add(f"Attachments: {', '.join(names)}")

    def _part(self, part: Mail, depth: int) -> None:
        """The text of a part; files that are attached have none."""
        kind = part.get_content_type()
        inner = _children(part)
        if depth > MOST_NESTING:
            return
        if kind == "message/rfc822":
            for child in inner:
                self._blocks.add("Message inside:")
                self.message(child, depth + 1)
        elif kind in _NOTICES:
            for child in inner:
                for number, (name, value) in enumerate(child.raw_items()):
                    line = " ".join(_decoded(str(value)).split())
                    self._blocks.add(f"{name}: {line}", gap=LINE if number else PARAGRAPH)
        elif kind in ("multipart/encrypted", *_PACKED):
            self.is_encrypted = str(part.get_param("smime-type") or "").lower() != "signed-data"
        elif kind == "multipart/alternative":
            self._alternative(inner, depth)
        elif kind in ("multipart/related", "multipart/signed"):
            for child in _roots(part, inner):
                self._part(child, depth + 1)
        elif part.is_multipart():
            for child in inner:
                self._part(child, depth + 1)
        elif part.get_content_maintype() in ("multipart", "message"):  # without the parts that it should have
            self._blocks.add(_text(part))
        elif _is_shown(part) or (depth == 0 and part.get_content_maintype() == "text"):
            self._show(part, kind)

    def _alternative(self, parts: list[Mail], depth: int) -> None:
        """The richest version that has text, or the plain one where it says the same: it is quicker, and has marks
        before what is quoted."""
        pages = [part for part in reversed(parts) if _holds(part, "text/html")]
        plain = [part for part in parts if part.get_content_type() == "text/plain"]
        plain_is_enough = plain and not (pages and _says_more(pages[0], _text(plain[0])))
        for part in (*(plain if plain_is_enough else pages), *pages, *plain, *parts):
            count = len(self._blocks)
            self._part(part, depth + 1)
            if len(self._blocks) > count:
                return

    def _show(self, part: Mail, kind: str) -> None:
        text = _text(part)
        if kind == "text/html":
            add_page(self._blocks, text, self._beat)
        elif kind == "text/rtf" and text.startswith("{\\rtf"):
            self._blocks.add(rtf_text(_bytes_of(part), self._beat))
        elif kind in ("text/enriched", "text/richtext"):
            self._blocks.add(_ENRICHED.sub(lambda mark: "<" if mark[0] == "<<" else "", text))
        elif kind == "text/calendar":
            for name, value in _EVENT_LINE.findall(_NO_EVENT.sub("", re.sub(r"\r?\n[ \t]", "", text))):
                self._blocks.add(f"{name.capitalize()}: {_unescaped(value)}", gap=LINE)
        else:
            self._blocks.add(_unfolded(part, text))


def _children(part: Mail) -> list[Mail]:
    payload = part.get_payload() if part.is_multipart() else None
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _roots(part: Mail, inner: list[Mail]) -> list[Mail]:
    """The part that the others belong to: the one that is named, or the first."""
    start = part.get_param("start")
    return [child for child in inner if start and child.get("Content-ID", "").strip() == start][:1] or inner[:1]


def _holds(part: Mail, kind: str) -> bool:
    return any(child.get_content_type() == kind for child in part.walk())


def _says_more(page: Mail, plain: str) -> bool:
    """Whether a page has tables, or clearly more text than the plain part beside it: that may be a mere footer."""
    html = next(_text(part) for part in page.walk() if part.get_content_type() == "text/html")
    if len(_CELL.findall(html)) > 3:
        return True
    return len("".join(plain.split())) < LEAST_PLAIN * len("".join(_TAG.sub(" ", html).split()))


def _is_shown(part: Mail) -> bool:
    """Text that stands in the mail itself; of other kinds than these only where it has no name."""
    is_text = part.get_content_maintype() == "text"
    is_body = part.get_content_type() in ("text/plain", "text/html") or not _given_name(part)
    return is_text and is_body and part.get_content_disposition() != "attachment"


def _is_file(part: Mail) -> bool:
    """What a mail program lists as a file: neither text, nor a picture in the text, nor a signature."""
    if (
        part.get_content_maintype() in ("multipart", "message")
        or _is_shown(part)
        or part.get_content_subtype().endswith("signature")
    ):
        return False
    in_text = part.get_content_maintype() == "image" and part.get("Content-ID") is not None
    return part.get_content_disposition() == "attachment" or not in_text


def _files(message: Mail) -> Iterator[Mail]:
    """The attached files of a message and of those inside it; one that is a file itself has its own."""
    for part in message.walk():
        if _is_file(part) and (part is not message or part.get_content_maintype() != "text"):
            yield part


def _given_name(part: Mail) -> str:
    """The name that a part has; none where it is encoded in a way that cannot be."""
    try:
        return part.get_filename() or ""
    except (ValueError, LookupError, TypeError):
        return ""


def _file_name(part: Mail) -> str:
    name = " ".join(_decoded(_given_name(part)).split())
    return name or f"attachment.{part.get_content_subtype()}"


def _text(part: Mail) -> str:
    """The text of a part, decoded by what it says or else by what it is; empty where that is no text."""
    payload = part.get_payload(decode=True)
    try:
        label = part.get_content_charset()
    except (ValueError, LookupError, TypeError):
        label = None
    try:
        return decode_declared(payload, label) if isinstance(payload, bytes) else ""
    except UnreadableSource:
        return ""


def _unfolded(part: Mail, text: str) -> str:
    """Lines that a mail program broke to send them (format=flowed) made whole."""
    if str(part.get_param("format") or "").lower() != "flowed":
        return text
    delete_blank = str(part.get_param("delsp") or "").lower() == "yes"
    lines: list[str] = []
    open_depth = -1  # of quotes of the line that is to be gone on with
    for line in text.splitlines():
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        flows = content.endswith(" ") and content != "-- "
        kept = content[:-1] if flows and delete_blank else content
        if depth == open_depth and content != "-- ":
            lines[-1] += kept
        else:
            lines.append(">" * depth + " " * bool(depth) + kept)
        open_depth = depth if flows else -1
    return "\n".join(lines)


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] in "nN" else found[1], value).strip()


def _header(message: Mail, name: str) -> str:
    """A header on one line, decoded; several of the same name one after the other."""
    values = [value for key, value in message.raw_items() if key.lower() == name.lower()]
    return ", ".join(" ".join(_decoded(str(value)).split()) for value in values)


def _decoded(value: str) -> str:
    """Encoded words, and bytes that should have been some, as text."""
    if _SURROGATE.search(value):
        value = _bytes_as_text(value.encode("ascii", "surrogateescape"), None)
    return _ENCODED_WORDS.sub(_decode_words, value)


def _decode_words(run: re.Match[str]) -> str:
    """Encoded words in a row: the blanks between them are none, and a character may be cut between two of them."""
    joined: list[tuple[str, bytes]] = []
    for label, encoding, word in _ENCODED_WORD.findall(run[0]):
        label = label.partition("*")[0].lower()
        data = _decode_word(encoding, word)
        if joined and joined[-1][0] == label:
            data = joined.pop()[1] + data
        joined.append((label, data))
    return "".join(_bytes_as_text(data, label) for label, data in joined)


def _decode_word(encoding: str, word: str) -> bytes:
    data = word.encode("utf-8", "replace")
    try:
        if encoding in "qQ":
            return binascii.a2b_qp(data, header=True)
        return binascii.a2b_base64(data + b"===")
    except binascii.Error:
        return data


def _bytes_as_text(data: bytes, label: str | None) -> str:
    try:
        return decode_declared(data, label)
    except UnreadableSource:
        return data.decode("latin-1")


def _date(message: Mail) -> str:
    """ISO with the sender's time zone, or as it stands where it is no date."""
    value = _header(message, "Date")
    try:
        return email.utils.parsedate_to_datetime(value).isoformat(" ", "minutes")
    except (ValueError, TypeError, IndexError, OverflowError):
        return value
