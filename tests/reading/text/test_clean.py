"""Decoding and clean-up: each trap that was measured has its test."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcli.errors import UnreadableSource
from embedcli.reading.text.clean import clean
from embedcli.reading.text.decode import decode
from embedcli.reading.text.hyphens import find_spellings

FRENCH = "Dès Noël, où un zéphyr haï me vêt de glaçons, je dîne d'exquis rôtis de bœuf à l'aÿ d'âge mûr.\n"
GERMAN = "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg; für Bücher über Mäuse gilt das auch.\n"
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, protože účet byl příšerně vysoký a nikdo nechtěl platit.\n"
RUSSIAN = "Это руководство является свободным программным обеспечением; вы можете его распространять.\n"
UKRAINIAN = "Усі люди народжуються вільними і рівними у своїй гідності та правах, вони наділені розумом.\n"
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.\n"
HEBREW = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם, כולם חוננו בתבונה ובמצפון.\n"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n"
CHINESE = "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。\n"
TAIWANESE = "人人生而自由,在尊嚴和權利上一律平等。他們賦有理性和良心,並應以兄弟關係的精神互相對待。\n"
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 이성과 양심을 가졌다.\n"
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม\n"

LEGACY = [
    (FRENCH, "cp1252"),
    (GERMAN, "iso8859-1"),
    (CZECH, "cp1250"),
    (CZECH, "iso8859-2"),
    (RUSSIAN, "cp1251"),
    (RUSSIAN, "koi8-r"),
    (RUSSIAN, "iso8859-5"),
    (RUSSIAN, "cp866"),
    (UKRAINIAN, "cp1251"),
    (GREEK, "cp1253"),
    (HEBREW, "cp1255"),
    (JAPANESE, "cp932"),
    (JAPANESE, "euc_jp"),
    (CHINESE, "gbk"),
    (TAIWANESE, "big5"),
    (KOREAN, "cp949"),
    (THAI, "cp874"),
]


def reason_of(data: bytes) -> str:
    with pytest.raises(UnreadableSource) as caught:
        decode(data)
    return caught.value.reason


@pytest.mark.parametrize(("text", "encoding"), LEGACY)
@pytest.mark.parametrize("repeats", [2, 50])
def test_old_encodings_are_read_exactly(text: str, encoding: str, repeats: int) -> None:
    assert decode((text * repeats).encode(encoding)) == text * repeats


@pytest.mark.parametrize(
    ("bom", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xff\xfe\x00\x00", "utf-32-le"),
        (b"\x00\x00\xfe\xff", "utf-32-be"),
    ],
)
def test_bom_decides_before_anything_else(bom: bytes, encoding: str) -> None:
    assert decode(bom + "Ein größerer Text 日本".encode(encoding)) == "Ein größerer Text 日本"


def test_a_bom_on_binary_data_is_not_believed() -> None:
    assert reason_of(b"\xff\xfe" + random.Random(3).randbytes(5_000)) == "not_text"


def test_a_torn_last_character_of_utf_16_is_dropped() -> None:
    assert decode(b"\xff\xfe" + "Text".encode("utf-16-le") + b"\x41") == "Text"


def test_no_bytes_is_empty() -> None:
    assert reason_of(b"") == "empty"


@pytest.mark.parametrize(
    "magic",
    [
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"\x7fELF",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"7z\xbc\xaf\x27\x1c",
        b"\xfd7zXZ\x00",
    ],
)
def test_binary_formats_are_known_by_their_first_bytes(magic: bytes) -> None:
    assert reason_of(magic + b"all the rest is harmless text") == "not_text"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_bom_is_found_though_it_is_valid_utf_8(encoding: str) -> None:
    text = "Plain English text, several words of it.\n" * 5
    assert decode(text.encode(encoding)) == text


def test_many_nuls_are_not_text_and_few_are_dropped() -> None:
    assert reason_of(b"\x00\x01\x02 the name of a column in a table" * 100) == "not_text"
    assert decode(b"One torn line\x00\n" + b"and good text\n" * 50) == "One torn line\n" + "and good text\n" * 50


def test_a_stray_nul_makes_no_wide_text_of_any_other() -> None:
    assert decode(b"\x00" + (RUSSIAN * 5).encode()) == RUSSIAN * 5
    assert decode(b"\x00" + (FRENCH * 5).encode("cp1252")) == FRENCH * 5


def test_a_binary_header_in_ascii_is_not_read_as_wide_text() -> None:
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }" + b" " * 50
    assert reason_of(header + b"\n" + bytes(range(256)) * 4) == "not_text"


def test_japanese_mail_is_decoded_and_terminal_colours_are_not_taken_for_it() -> None:
    assert decode(JAPANESE.encode("iso2022_jp")) == JAPANESE
    assert decode(b"\x1b[1mbold\x1b(B\x1b[m") == "\x1b[1mbold\x1b(B\x1b[m"


def test_broken_bytes_in_utf_8_become_replacement_characters() -> None:
    data = (RUSSIAN * 3).encode()
    assert decode(data[:-2] + b"\xff\n") == (RUSSIAN * 3)[:-2] + "\ufffd\n"


def test_an_accent_far_down_an_ascii_file_is_found() -> None:
    text = "Nothing but ASCII on this line.\n" * 20_000 + "Le café était fermé, déjà.\n"
    assert decode(text.encode("latin-1")) == text


def test_an_accent_in_a_line_without_end_is_found() -> None:
    text = "Nothing but ASCII in this line, " * 20_000 + "le café était fermé, déjà"
    assert decode(text.encode("latin-1")) == text


def test_few_accents_are_latin_and_not_cyrillic() -> None:
    assert decode("déjà vu".encode("latin-1")) == "déjà vu"


def test_curly_quotes_of_windows_are_no_control_characters() -> None:
    text = "He said \u201cwell\u201d \u2013 and it\u2019s the caf\u00e9 he\u2019d left.\n"
    assert decode(text.encode("cp1252")) == text


CUT = "Straße in Köln, früher Grüße.\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            "für März, Prüfung übernimmt Müller, Straße ".encode() + b"\xc3",
            "für März, Prüfung übernimmt Müller, Straße \ufffd",
        ),
        (b"user J\xc3\xbcrgen\n" * 3 + b"payload \xff\xfe\x80\n", "user Jürgen\n" * 3 + "payload \ufffd\ufffd\ufffd\n"),
        ("你好，世界。今天天气很好".encode() + b"\xe3\x80", "你好，世界。今天天气很好\ufffd"),
        ("Ship it 🚀\n".encode() + b"\xe2\x80", "Ship it 🚀\n\ufffd"),
        (CUT.encode() * 9 + CUT.encode("cp1252") * 9, CUT * 9 + re.sub("[^\x00-\x7f]", "\ufffd", CUT) * 9),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        (b"Plain words \xf0\x9f\x9a", "Plain words \ufffd"),
        (b"Plain words \xe2\x80", "Plain words \ufffd"),
        (b"Kleine Stra\xc3", "Kleine Stra\ufffd"),
        ("lost before: \ufffd\ufffd\ufffd, né\n".encode() + b"\xff", "lost before: \ufffd\ufffd\ufffd, né\n\ufffd"),
    ],
)
def test_one_bad_byte_costs_one_character_and_not_the_encoding(data: bytes, text: str) -> None:
    assert decode(data) == text


@pytest.mark.parametrize(("text", "encoding"), LEGACY)
def test_no_line_in_an_old_encoding_is_taken_for_damaged_utf_8(text: str, encoding: str) -> None:
    data = text.encode(encoding)
    for start in range(0, len(data) - 24, 3):
        try:
            assert "\ufffd" not in decode(data[start:]) or encoding in {"cp932", "gbk", "big5", "euc_jp", "cp949"}
        except UnreadableSource as problem:
            assert problem.reason == "not_text"


SYMBOLS = ["½", "×", "£", "12 m³/h, area 4 m²", "½ inch or ¾ inch", "© 2019 Example GmbH ® registered", "95¢, ¥1200"]
SYMBOLS += [
    "Footnotes¹ ² ³ are below",
    "5 ± 0.1 mm",
    "Item\xa0A costs 5 units.\xa0Item\xa0B costs 6.",
    "3 × 4 ÷ 2",
    "§ 4 ¶ 2",
]
SYMBOLS += [
    "20 °C",
    "5\xa0kg",
    "Price: £5",
    "a² + b²",
    "10 µF",
    "Acme™ pump – “new”",
    "it’s 20 €",
    "1º",
    "• item",
    "«quoted»",
]


@pytest.mark.parametrize("symbols", SYMBOLS)
@pytest.mark.parametrize("around", ["{}", "The unit is made for indoor use.\n{}\nKeep the manual near the machine.\n"])
def test_symbols_alone_are_those_of_windows(symbols: str, around: str) -> None:
    text = around.format(symbols)
    assert decode(text.encode("cp1252")) == text


@pytest.mark.parametrize("text", ["5 zł", "mój kot śpi", "był mały", "Michał", "są tu", "zażółć gęślą jaźń"])
@pytest.mark.parametrize("encoding", ["cp1250", "iso8859-2"])
def test_letters_that_share_their_bytes_with_symbols_stay_letters(text: str, encoding: str) -> None:
    sentence = f"{text}, a to jest następne zdanie, które mówi coś więcej o języku\n"
    assert decode(sentence.encode(encoding)) == sentence


@pytest.mark.parametrize("encoding", ["cp850", "cp437"])
@pytest.mark.parametrize(
    "text",
    [
        *("Müller", "café", "Füße", "Größe 5", "élève côté", "François", "niño", "año", "mañana", "habitación"),
        *("Tür zu", "für", "Bücher", "crème brûlée", "fenêtre", "Noël", "Grüße aus Köln", "naïve", "Käse"),
    ],
)
def test_short_text_of_dos_is_read(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("text", ["café", "naïve", "niño", "là", "Noël", "déjà vu", "Müller", "Straße", "crème brûlée"])
def test_a_word_with_an_accent_is_read_as_windows_wrote_it(text: str) -> None:
    assert decode(text.encode("cp1252")) == text


def test_a_manual_page_in_an_old_encoding_is_text_with_its_backspaces() -> None:
    bold = "".join(f"{letter}\b{letter}" for letter in "ÜBERSICHT")
    assert clean(decode(f"{bold}\n  für alle\n".encode("latin-1")), pdf=False) == "ÜBERSICHT\n  für alle\n"


def test_random_bytes_are_refused() -> None:
    chance = random.Random(11)
    refused = 0
    for _ in range(60):
        try:
            decode(chance.randbytes(chance.randint(500, 3_000)))
        except UnreadableSource as problem:
            refused += problem.reason == "not_text"
    assert refused >= 58


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_text_or_a_reason(data: bytes) -> None:
    try:
        text = clean(decode(data), pdf=False)
    except UnreadableSource as problem:
        assert problem.reason in ("empty", "not_text")
    else:
        assert text.encode("utf-8").decode("utf-8") == text


def test_what_is_struck_over_to_its_last_byte_is_no_text() -> None:
    with pytest.raises(UnreadableSource, match="not_text"):
        decode(b"\x80\x08")


def test_utf_8_needs_no_detector() -> None:
    code = (
        "import sys, embedcli.reading.text.decode as t; t.decode('größer'.encode()); sys.exit('chardet' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ("di\x0berent, de\x0cne, o\x0ece, ba\x0fe", "different, define, office, baffle"),
        ("di\x1berent, de\x1cne, \x1dow, o\x1ece, ba\x1fe", "different, define, flow, office, baffle"),
        ("re\rect de\x0cne\r\nnext", "reflect define\nnext"),
        ("a line\rand \x1cne", "a line\nand fine"),
        ("page \x0c\x0b alone \x0c", "page  alone "),
    ],
)
def test_ligature_codes_are_spelled_before_line_ends(codes: str, words: str) -> None:
    assert clean(codes, pdf=True) == words


def test_ligature_codes_are_no_ligatures_in_a_text_file() -> None:
    assert clean("de\x0cne di\x0eerent", pdf=False) == "de\nne dierent"


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x85"])
def test_every_kind_of_line_break_stays_one_in_a_text_file(mark: str) -> None:
    assert clean(f"one{mark}two", pdf=False) == "one\ntwo"


@pytest.mark.parametrize("mark", ["\x01", "\x1c", "\x1d", "\x1e", "\x1f"])
def test_marks_between_fields_become_blanks_in_a_text_file(mark: str) -> None:
    assert clean(f"name{mark}value", pdf=False) == "name value"


@pytest.mark.parametrize("line_end", ["\r\n", "\r", "\n"])
def test_line_ends_become_one(line_end: str) -> None:
    assert clean(f"one{line_end}two", pdf=False) == "one\ntwo"


def test_characters_that_no_text_has_are_deleted() -> None:
    junk = "\x00\x02\x7f\x84\x9f\ufffe\uffff\ufdd0\ufdef\ud800\udfff\ufeff\xad"
    assert clean(f"a{junk}b\t\n", pdf=False) == "ab\t\n"


def test_private_use_is_deleted_in_pdfs_only() -> None:
    assert clean("a\ue000b\U000f0001c", pdf=True) == "abc"
    assert clean("a\ue000b", pdf=False) == "a\ue000b"


@pytest.mark.parametrize(
    ("raw", "joined"),
    [
        ("漢字 \r\n 漢字", "漢字漢字"),
        ("縦\n書\nき", "縦書き"),
        ("文。\n次", "文。次"),
        ("한국\n어", "한국\n어"),
        ("漢\nlatin\n字", "漢\nlatin\n字"),
        ("漢\n\n字", "漢\n\n字"),
        ("a\nb", "a\nb"),
    ],
)
def test_line_ends_between_han_and_kana_go_and_no_others(raw: str, joined: str) -> None:
    assert clean(raw, pdf=True) == joined


def test_line_ends_of_a_text_file_stay() -> None:
    assert clean("漢字\n漢字", pdf=False) == "漢字\n漢字"


def test_only_ligatures_and_radicals_are_made_compatible() -> None:
    assert clean("\ufb01\ufb03 \u2f00\u2fd5", pdf=False) == "fiffi 一龠"
    assert clean("Ａ① ½ ²", pdf=False) == "Ａ① ½ ²"


def test_characters_that_must_be_kept_are_kept() -> None:
    kept = "a\u00a0b  c\u200d\u200c\u200f\u200e\u2028 ｆｕｌｌ　 \ufffd"
    assert clean(kept, pdf=True) == clean(kept, pdf=False) == kept


@settings(deadline=None)
@given(st.text(max_size=80), st.booleans())
def test_clean_text_is_nfc_stays_clean_and_encodes(text: str, pdf: bool) -> None:
    once = clean(text, pdf=pdf)
    assert unicodedata.is_normalized("NFC", once)
    assert clean(once, pdf=pdf) == once
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", once) is None
    once.encode("utf-8")


@pytest.mark.parametrize(
    "hostile",
    [
        "a",
        "a\x02",
        "\x02",
        "-",
        "a-",
        " ",
        "\n",
        "漢\n",
        "漢 ",
        "　",
        "\x0c",
        "a\x0c",
        "\r",
        "\u0301",
        "\ufb01",
        "\ue000",
    ],
)
def test_time_is_linear_in_hostile_text(hostile: str) -> None:
    text = "漢" + hostile * (400_000 // len(hostile)) + "x"
    start_s = time.process_time()
    clean(text, pdf=True, spellings=find_spellings([text, "\x02"]))
    assert time.process_time() - start_s < 30


@pytest.mark.parametrize("hostile", [b"\xe9", b"\xe9\n", b"a\xe9", b"a", b"\n", b"\x1b$", b"\xc3", b"\xff"])
def test_decoding_time_is_linear_in_hostile_bytes(hostile: bytes) -> None:
    data = b"a" + hostile * (2_000_000 // len(hostile)) + b"\xe9"
    start_s = time.process_time()
    try:
        decode(data)
    except UnreadableSource as problem:
        assert problem.reason == "not_text"
    assert time.process_time() - start_s < 30
