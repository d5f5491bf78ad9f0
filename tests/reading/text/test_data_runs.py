"""Base64, dumps and minified code never become text of a document; text without blanks does."""

from __future__ import annotations

import base64
import binascii
import random
import time
from collections.abc import Callable

import pytest

from embedcli.reading.text.data_runs import without_data
from tests.office_files import read_bytes

BYTES = random.Random(7).randbytes(6_000)
BASE64 = base64.b64encode(BYTES).decode()
FOLDED = base64.encodebytes(BYTES).decode()
NUMBERS = ",".join(f"{byte / 256:.6f}" for byte in BYTES[:600])
MINIFIED = "".join(f'function(e{n}){{return!e{n}&&(t=Object.assign({{}},n["{n:x}"]))}}' for n in range(80)).replace(
    "return!", "if(!"
)


@pytest.mark.parametrize("data", [BASE64, BYTES.hex(), NUMBERS, MINIFIED, BASE64.replace("+", "-").replace("/", "_")])
def test_a_long_run_of_data_is_left_out_and_the_words_beside_it_stay(data: str) -> None:
    assert without_data(f'key: "x" {data} end\nnext') == ('key: "x"  end\nnext', 1)


def test_folded_base64_is_left_out_and_its_neighbours_stay_apart() -> None:
    text, count = without_data(f"PHOTO;ENCODING=b:\n {FOLDED.replace(chr(10), chr(10) + ' ')}END:VCARD\n")
    assert count == 1
    assert text.startswith("PHOTO;ENCODING=b:\n") and text.rstrip().endswith("END:VCARD")
    assert len(text) < 80
    assert without_data(FOLDED + "Regards\n") == ("\n\nRegards\n", 1)


def hexdump(data: bytes) -> str:
    lines = (data[start : start + 16] for start in range(0, len(data), 16))
    return "".join(
        f"{n * 16:08x}  {line[:8].hex(' ')}  {line[8:].hex(' ')}  |{'.' * 16}|\n" for n, line in enumerate(lines)
    )


def xxd(data: bytes) -> str:
    lines = (data[start : start + 16] for start in range(0, len(data), 16))
    return "".join(f"{n * 16:08x}: {line.hex(' ', 2)}  Aa. b|zZ..$%19.x\n" for n, line in enumerate(lines))


def intel_hex(data: bytes) -> str:
    lines = (data[start : start + 16] for start in range(0, len(data), 16))
    return "".join(f":10{n * 16 & 0xFFFF:04X}00{line.hex().upper()}7F\n" for n, line in enumerate(lines))


def uuencoded(data: bytes) -> str:
    lines = (data[start : start + 45] for start in range(0, len(data), 45))
    return "".join(binascii.b2a_uu(line, backtick=True).decode() for line in lines)


@pytest.mark.parametrize("written", [hexdump, xxd, intel_hex, uuencoded])
def test_lines_of_a_dump_are_left_out_and_its_neighbours_stay(written: Callable[[bytes], str]) -> None:
    mostly_zero = bytes(byte if n % 3 == 0 else 0 for n, byte in enumerate(BYTES[:5_400]))
    for data in (BYTES[:4_500], mostly_zero):
        text, count = without_data(f"The firmware:\n{written(data)}That was it.\n")
        assert count == 1 and text.split() == ["The", "firmware:", "That", "was", "it."]


def test_lines_of_decimal_numbers_are_no_dump() -> None:
    numbers = random.Random(3)
    table = "".join(" ".join(f"{numbers.randrange(10_000):04}" for _ in range(12)) + " ok\n" for _ in range(100))
    assert without_data(table) == (table, 0)
    shouted = "".join("MACHINE " + "X" * 53 + "\n" for _ in range(60))
    assert without_data(shouted) == (shouted, 0)


def test_a_line_of_minified_code_with_a_few_blanks_is_left_out() -> None:
    style = "".join(f".c{n}{{color:#{n * 999:06x};margin:0 auto;padding:{n}px}}" for n in range(100))
    assert without_data(f"/* Style */\n{style}\nend\n") == ("/* Style */\n\nend\n", 1)
    code = "".join(f"if a{n} < {n}: return f(a{n}, {n}) # why; " for n in range(100))
    assert without_data(code) == (code, 0)


@pytest.mark.parametrize(
    "text",
    [
        "天地玄黃宇宙洪荒日月盈昃辰宿列張" * 200,
        "สวัสดีชาวโลก" * 300,
        "=" * 5_000,
        "a" * 5_000,
        "thequickbrownfoxjumpsoverthelazydogandrunsaway" * 60,
        "A normal line of text, as anybody would write it.\n" * 400,
        BASE64[:1_900],
        FOLDED[:1_500],
        "word " * 5_000,
        "/usr/lib/x86_64-linux-gnu/perl-base/unicore/lib/Perl/SpacePer/And_0x41\n" * 60,
    ],
)
def test_text_is_no_data(text: str) -> None:
    assert without_data(text) == (text, 0)


def test_a_text_file_with_data_is_partial_and_one_of_nothing_else_is_no_text() -> None:
    document = read_bytes(f"before\n{BASE64}\nafter\n".encode(), "a.txt")
    assert document.text == "before\n\nafter\n"
    assert (document.pages_skipped, document.reason) == (1, "data_left_out")
    with pytest.raises(Exception, match="not_text"):
        read_bytes(BASE64.encode(), "a.txt")


@pytest.mark.parametrize(
    "part",
    [
        "0000 " + "00 " * 20 + "\n",
        "0000" + " 0a" * 40 + "~" * 60 + "\n",
        "0000 " + "0" * 200 + "~\n",
        ":" + "0A" * 20 + "\n",
        "M" + "A" * 60 + "\n",
        "00 " * 7,
        "A" * 60 + "\n",
        "A" * 59 + "\n",
        "a",
        " " * 9 + "\n",
        "A" * 60 + " " * 9 + "\n",
        "0",
    ],
)
def test_time_is_linear(part: str) -> None:
    started = time.process_time()
    without_data(part * (2_000_000 // len(part)))
    assert time.process_time() - started < 30
