"""Rich text is read as its reader sees it."""

from __future__ import annotations

import time

import pytest

from embedcli.errors import UnreadableSource
from embedcli.records import Document
from tests.office_files import read_bytes

START = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss Helvetica;}{\f1\fnil\fcharset204 FONTNAME;}"
    r"{\f2\fcharset128 MS;}}{\colortbl;\red0\green0\blue0;}{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}"
    r"{\*\cs5 Heading 2 Char;}{\s2 heading 2;}}{\info{\title Pump manual}{\author ANNA}}"
)


def rtf(body: str, name: str = "a.rtf") -> Document:
    return read_bytes((START + body + "}").encode("cp1252"), name)


def test_headings_lists_and_tables() -> None:
    body = r"""{\pard\s1 Install\par}{\pard\s2 Linux\par}\pard {\listtext\'b7\tab}Unpack it.\par
{\*\pn\pnlvlblt}{\pntext 1.\tab}Start it.\par\pard Text
 goes on.\par\trowd\cellx1\cellx2\pard\intbl Part\cell Torque\cell\row\trowd\pard\intbl Bolt\par M8\cell 12 Nm\cell\row
\pard After.\par"""
    document = rtf(body)
    assert document.title == "Pump manual"
    assert [path for _, path in document.sections] == ["Install", "Install > Linux"]
    assert document.text == (
        "Install\n\nLinux\n- Unpack it.\n- Start it.\n\nText goes on.\nPart | Torque\nBolt M8 | 12 Nm\n\nAfter."
    )


@pytest.mark.parametrize("end", [r"\column", r"\page", r"\sect", r"\line", r"\lbr0"])
def test_words_before_and_behind_a_break_are_two(end: str) -> None:
    assert rtf(rf"\pard Stop.{end} Go on.\par").text.split() == ["Stop.", "Go", "on."]


def test_characters_of_every_kind() -> None:
    body = (
        r"\'e4\u8364? {\f1 \'cd\'e0}{\f2 \'83\'7c}\u-10179?\u-8704?{\uc2\u9731\'3f\'3f}"
        r"{\uc0\u233}\~x\_y\-z\emdash\ldblquote q\rdblquote \{a\}\\ one\line two\tab three"
    )
    assert rtf(body).text == "ä€ Наポ\U0001f600☃é\u00a0x-yz—“q”{a}\\ one\ntwo\tthree"


def test_characters_of_symbol_fonts_are_what_they_show() -> None:
    fonts = (
        r"{\fonttbl{\f7\ftech\fcharset2 Symbol{\*\falt Wingdings};}"
        r"{\f8\fnil\fcharset2{\*\panose 05000000000000000000}Wingdings;}}"
    )
    body = r"5 {\f7 m}m {\f7\'b1\u-3920\'b0} 2 {\f8 \'e0\'ff} {\f8\u-3872 ?\plain m}"
    assert rtf(fonts + body).text == "5 \u00b5m ±° 2 → →m"


def test_what_is_no_text_of_the_page_is_out() -> None:
    body = (
        r"Text{\pict\pngblip 89504e47}{\*\generator MARK;}{\*\bkmkstart MARK}{\annotation MARK}{\v MARK}{\deleted MARK}"
        r"{\object{\*\objdata 4142}{\result shown}}{\field{\*\fldinst MARK}"
        r"{\fldrslt link}}\bin4 MARK{\*\unknown{\b MARK}}."
    )
    assert rtf(body).text == "Textshownlink."


def test_notes_follow_their_paragraph_and_margins_are_read_once() -> None:
    body = (
        r"{\header\pard ACME\par}{\headerf ACME\par}{\footer\pard Version 3\par}\pard Text{\super 1"
        r"{\*\footnote A note.\par}} goes on.\par Next.{\*\shpinst{\sp{\sn MARK}}{\shptxt In a box.\par}}\par"
    )
    assert rtf(body).text == "ACME\n\nText1 goes on.\n\nA note.\n\nNext.In a box.\n\nVersion 3"


def test_it_is_known_by_its_content_under_the_name_of_a_word_file() -> None:
    assert rtf("Text", "a.doc").text == "Text"


def test_torn_and_unbalanced_files_give_what_they_have() -> None:
    assert read_bytes(rb"{\rtf1 Text {\b more", "a.rtf").text == "Text more"
    assert read_bytes(rb"{\rtf1 Text}}} more", "a.rtf").text == "Text more"
    for data in (rb"{\rtf1}", rb"{\rtf1 {\pict 00}}"):
        with pytest.raises(UnreadableSource) as caught:
            read_bytes(data, "a.rtf")
        assert caught.value.reason == "empty"


@pytest.mark.parametrize("hostile", ["{", "}", r"\'e4", r"\u8364?", r"\b ", r"\cell", r"{\footnote ", r"\bin9 ", "\\"])
def test_time_is_linear_in_hostile_markup(hostile: str) -> None:
    started = time.process_time()
    try:
        rtf("x" + hostile * (300_000 // len(hostile)))
    except UnreadableSource as error:
        assert error.reason == "damaged"
    assert time.process_time() - started < 30


def form(kind: str, inside: str, result: str) -> str:
    data = rf"{{\*\datafield 0500}}{{\*\formfield{{\fftype2{inside}{{\*\ffname X}}{{\*\ffl Red}}{{\*\ffl Gr\'fcn}}}}}}"
    return rf"Colour: {{\field\flddirty{{\*\fldinst {{ FORM{kind} {data}}}}}{{\fldrslt {result}}}}} now\par"


@pytest.mark.parametrize(
    ("result", "chosen"),
    [(r"\ffres1", "Gr\u00fcn"), (r"\ffres25\ffdefres1", "Gr\u00fcn"), (r"\ffres0", "Red"), ("", "Red")],
)
def test_what_is_chosen_from_the_list_of_a_form_is_read(result: str, chosen: str) -> None:
    assert rtf(form("DROPDOWN", rf"{result}\ffhaslistbox1", "")).text == f"Colour: {chosen} now"
    assert rtf(form("DROPDOWN", rf"{result}\ffhaslistbox1", "{\\b Blue}")).text == "Colour: Blue now"
    without_result = form("DROPDOWN", result, "").replace(r"{\fldrslt }", "")
    assert rtf(f"{without_result} {without_result}").text == f"Colour: {chosen} now\n\nColour: {chosen} now"


def test_a_choice_that_is_none_of_the_list_is_none() -> None:
    assert rtf(form("DROPDOWN", r"\ffres7", "")).text.split() == ["Colour:", "now"]


def test_what_is_typed_into_a_form_is_read() -> None:
    assert rtf(form("TEXT", r"{\*\ffdeftext DEFAULT}", "Ada")).text == "Colour: Ada now"


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (r"{\mr\mscr0\msty2 \f0 E=}{\mf{\mfPr{\mtype bar}{\*\mctrlPr}}{\mnum{\mr a+1}}{\mden{\mr 2}}}", "E=(a+1)/2"),
        (r"{\mr f}{\md{\mdPr{\mctrlPr}}{\me{\mr x}}}", "f(x)"),
        (r"{\md{\mdPr{\mbegChr [}{\mendChr }}{\me{\mr x}{\md{\me{\mr y}}}}}", "[x(y)"),
        (r"{\mnary{\mnaryPr{\mchr \u8721?}{\mlimLoc undOvr}}{\msub{\mr i}}{\msup{\mr n}}{\me{\mr i}}}", "\u2211ini"),
        (r"{\mnary{\mnaryPr{\mlimLoc undOvr}}{\me{\mr x}}}", "\u222bx"),
    ],
)
def test_a_formula_is_read_in_its_place(formula: str, text: str) -> None:
    written = rf"{{\mmath{{\*\moMathPara{{\moMathParaPr{{\mjc 1}}}}{{\*\moMath{formula}}}}}}}{{\*\mmathPict PICTURE}}"
    assert rtf(rf"Where {written} holds.\par Next.\par").text == f"Where {text} holds.\n\nNext."
    assert rtf(rf"Where {{\v {written}}}holds.\par").text == "Where holds."


def test_of_a_text_that_is_there_in_unicode_too_that_is_read() -> None:
    assert rtf(r"A {\upr{\'3f}{\*\ud{\u1055?}}} b\par").text == "A \u041f b"
    assert rtf(r"A {\v{\upr{\'3f}{\*\ud{\u1055?}}}} b\par").text == "A  b"
    assert rtf(r"A {\*\unknown{\upr{\'3f}{\*\ud{\u1055?}}}} b\par").text == "A  b"


def test_groups_where_they_do_not_belong_cost_no_document() -> None:
    for word in (r"\field", r"\mnum", r"\mchr", r"\*\ud", r"\footnote", r"\*\ffl", r"\upr"):
        for outer in (r"\field{\*\fldinst{\*\formfield{\*\ffl ", r"\mmath{\*\moMath{\mf{\mnum{\md ", r"\upr{"):
            assert rtf(rf"Text {{{outer}a{{{word} b\par c").text.startswith("Text")


def test_text_that_was_moved_is_read_where_it_is_now() -> None:
    assert rtf(r"Now {\mvt moved }here. {\mvf moved }\mvf gone\mvf0  End.\par").text == "Now moved here.  End."


def test_the_text_of_old_drawings_is_read_once() -> None:
    """Word 6 knew them alone; later programs write them beside what they draw themselves."""
    box = r"{\*\do\dobxpage{\dptxbx\dptxlrtb{\dptxbxtext \pard Box}}}"
    assert rtf(rf"Text {box}\par").text.split() == ["Text", "Box"]
    both = rf"{{\shp{{\*\shpinst\shpleft0{{\shptxt \pard Box}}}}{{\shprslt{box}}}}}"
    assert rtf(rf"Text {both}\par").text.split() == ["Text", "Box"]
