#!/usr/bin/env bash
# pypdfium2 5.15.2 (PDFium), seen 2026-11-29: a character beyond U+FFFF (an emoji, a mathematical letter, a rare ideograph)
# counts as two for FPDFText_CountChars, and FPDFText_GetUnicode gives each half of its pair as a code point of its own,
# although it returns 32 bits. In a line of right-to-left text the halves come in the wrong order, which is no
# character any more, and get_text_range() drops it without a word: two Hebrew letters are left of three characters.
# Output seen: Latin   0x41 0xd835 0xdc00 0x62      'A\U0001d400b'
#              Hebrew  0x5d1 0xdc00 0xd835 0x5d0    '\u05d1\u05d0'
# Exits 0 as long as this is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check pypdfium2==5.15.2
"$place/venv/bin/python" - <<'PY'
import pypdfium2
import pypdfium2.raw as pdfium


def stream(data: bytes) -> bytes:
    return b"<</Length %d>>stream\n%s\nendstream" % (len(data), data)


def pdf(shown: str, characters: dict[str, str]) -> bytes:
    """One line in Helvetica, whose letters stand for these characters."""
    pairs = "".join(f"<{ord(k):02X}> <{v.encode('utf-16-be').hex()}>\n" for k, v in characters.items())
    to_unicode = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /M def /CMapType 2 def\n"
        "1 begincodespacerange <00> <FF> endcodespacerange\n"
        f"{len(characters)} beginbfchar\n{pairs}endbfchar endcmap end end"
    )
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 300]/Contents 5 0 R/Resources<</Font<</F1 4 0 R>>>>>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding/ToUnicode 6 0 R>>",
        stream(b"BT /F1 12 Tf 50 200 Td (%s) Tj ET" % shown.encode()),
        stream(to_unicode.encode()),
    ]
    file, starts = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        starts.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    end = b"trailer<</Size 7/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(file)
    return file + b"xref\n0 7\n0000000000 65535 f \n" + table + end


def read(characters: dict[str, str]) -> tuple[list[int], str]:
    page = pypdfium2.PdfDocument(pdf("aqb", characters))[0].get_textpage()
    return [pdfium.FPDFText_GetUnicode(page, index) for index in range(page.count_chars())], page.get_text_range()


latin = read({"a": "A", "q": "\U0001d400", "b": "b"})
hebrew = read({"a": "\u05d0", "q": "\U0001d400", "b": "\u05d1"})
for name, (codes, text) in (("Latin", latin), ("Hebrew", hebrew)):
    print(f"{name:7}", *map(hex, codes), "  ", ascii(text))
assert latin == ([0x41, 0xD835, 0xDC00, 0x62], "A\U0001d400b")
assert hebrew == ([0x5D1, 0xDC00, 0xD835, 0x5D0], "\u05d1\u05d0"), "the character is there now"
PY
