"""A web page is read as its reader sees it."""

from __future__ import annotations

import time

import pytest

from embedcli.errors import UnreadableSource
from tests.office_files import read_bytes


def text_of(page: str) -> str:
    return read_bytes(page.encode(), "a.html").text


PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>Pump
 manual</title><style>p { color: red }</style><script>var a = "SCRIPT";</script></head><body>
<nav><a href="/">MENU</a></nav><h1>The pump</h1><p>It <b>pu</b>mps,
   as <a href="https://example.org/MARKUP">the maker</a> says.</p><h2>Install</h2>
<ul><li>one<li><p>two</p><p>more</p></ul>text between<h3>Linux</h3>
<table><tr><th>Part<th>Torque</tr><tr><td>Bolt<td>12&nbsp;Nm</table></body></html>"""


def test_visible_text_comes_in_blocks_and_headings_are_sections() -> None:
    document = read_bytes(PAGE.encode(), "a.html")
    assert document.title == "Pump manual"
    assert document.text == (
        "The pump\n\nIt pumps, as the maker says.\n\nInstall\n- one\n- two\n\nmore\n\ntext between\n\nLinux\n"
        "Part | Torque\nBolt | 12 Nm"
    )
    assert [path for _, path in document.sections] == ["The pump", "The pump > Install", "The pump > Install > Linux"]
    assert document.text[document.sections[2][0] :].startswith("Linux\n")


def test_a_break_ends_a_line_and_a_mark_inside_a_word_does_not() -> None:
    assert text_of("<p>one<br>two<br/>thr<i>e</i>e</p>") == "one\ntwo\nthree"


def test_what_is_not_displayed_is_out() -> None:
    hidden = """<p>shown</p><p style="color:red; DISPLAY : none">A</p><p style="visibility:hidden;x:y">A</p>
        <p style="border:none;overflow:hidden">too</p><div hidden><p>B</p></div><template>C</template>
        <svg><text>D</text></svg><noscript>E</noscript><!-- F --><select><option>G</select><dialog><p>H</p></dialog>
        <div role="navigation">I</div><iframe>J</iframe>"""
    assert text_of(hidden) == "shown\n\ntoo"


@pytest.mark.parametrize(
    "page",
    [
        "<nav>Only this</nav>",
        "<body style='display:none'><p>Only this</p></body>",
        "<noscript>Only this</noscript>",
        "<svg><text>Only this</text></svg>",
        "<div hidden><div><select><option>Only this</select></div></div>",
        "Only this",
        "<frameset><noframes>Only this</noframes></frameset>",
    ],
)
def test_a_page_that_has_text_is_never_empty(page: str) -> None:
    assert text_of(page) == "Only this"


def test_a_menu_that_was_never_closed_does_not_take_the_page_with_it() -> None:
    assert "The text" in text_of("<p>Intro</p><nav><a>Home</a><h1>Title</h1><p>The text</p>")


def test_a_page_of_nothing_is_empty() -> None:
    for page in ("<html><script>var a</script></html>", "", " \n", "<style>p{}</style>"):
        with pytest.raises(UnreadableSource) as caught:
            text_of(page)
        assert caught.value.reason == "empty"


def test_tables_that_lay_out_a_page_are_read_as_passages() -> None:
    inner = "<table><tr><td>Part</td><td>Price</td></tr><tr><td>Bolt</td><td></td></tr></table>"
    layout = f"<table><tr><td><h1>News</h1><p>First</p></td><td><p>Aside</p></td></tr><tr><td>{inner}</td></tr></table>"
    assert text_of(layout) == "News\n\nFirst\n\nAside\nPart | Price\n\nBolt"


def test_characters_of_symbol_fonts_are_what_they_show() -> None:
    word = (
        "<p><span style='font-family:Symbol'><span style='mso-list:Ignore'>·<span style='font:7.0pt \"Times\"'>&nbsp;à"
        "</span></span></span>First <span style='font-family:Wingdings;mso-symbol-font-family:Wingdings'>"
        "<span style='mso-char-type:symbol;mso-symbol-font-family:Wingdings'>à</span></span> second"
        '<p>Thanks <font face="Wingdings"><b>J</b></font> <span style="font-family: Symbolon, serif">m</span>'
        "<span style=\"font-family:'Symbol',serif\">m</span>m"
    )
    assert text_of(word) == "• àFirst → second\n\nThanks ☺ m\u00b5m"


def test_a_fraction_of_a_formula_is_no_number_of_its_own() -> None:
    half = "<mfrac><mn>1</mn><mn>2</mn></mfrac>"
    inner = f"<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow>\n<mrow>{half}</mrow></mfrac>"
    assert text_of(f"<p>Turn <math>{half}</math>, then <math><mi>x</mi><mo>=</mo>{inner}</math>.</p>") == (
        "Turn 1/2, then x=(a+b)/(1/2)."
    )
    on_lines = f"<math>\n <mfrac>\n  <mn>1</mn>\n  <mrow>\n {half}\n </mrow>\n </mfrac>\n</math>".replace(
        "><m", ">\n<m"
    )
    assert text_of(f"<p>Turn {on_lines}.</p>") == "Turn 1/(1/2)."


def test_code_keeps_its_lines_and_blanks() -> None:
    assert text_of("<p>Type:</p><pre>if a:\n    b()\n</pre>") == "Type:\n\nif a:\n    b()"


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("windows-1251", "cp1251"),
        ("iso-8859-1", "cp1252"),
        ("gb2312", "gb18030"),
        ("Shift_JIS", "cp932"),
        ("ks_c_5601-1987", "cp949"),
        ("iso-8859-1", "utf-8"),
        ("utf-8", "cp1252"),
        ("no-such", "utf-8"),
        ("utf-16", "utf-8"),
        ("hex", "utf-8"),
        ("iso-8859-2", "utf-16"),
        ("big5", "utf-8-sig"),
    ],
)
def test_the_encoding_is_the_one_that_the_page_names_unless_it_cannot_be(declared: str, encoding: str) -> None:
    words = {
        "cp1251": "Насос",
        "gb18030": "联通 水泵 \u4e02",
        "cp932": "ポンプ①",
        "cp949": "펌프 믜",
        "utf-16": "čerpadlo",
    }.get(encoding, "Pumpe für 5 €")
    for meta in (f'<meta charset="{declared}">', f'<meta http-equiv=x content="text/html; charset={declared}">'):
        page = f"<html><head>{meta}</head><body><p>{words}</p></body></html>".encode(encoding)
        assert read_bytes(page, "a.html").text == words


def test_an_xhtml_page_may_name_its_encoding_in_its_first_line() -> None:
    page = '<?xml version="1.0" encoding="windows-1250"?><html><body><p>čerpadlo</p></body></html>'
    assert read_bytes(page.encode("cp1250"), "a.xhtml").text == "čerpadlo"


def test_a_page_under_the_name_of_an_office_file_is_a_page() -> None:
    for name in ("a.xls", "a.doc", "a"):
        assert read_bytes(b"\n<HTML><p>Text</p></HTML>", name).text == "Text"
    assert read_bytes(b"<html><p>Text</p></html>", "template.txt").text == "<html><p>Text</p></html>"


def test_pictures_inside_a_page_are_no_text() -> None:
    picture = '<img src="data:image/png;base64,' + "iVBORw0KGgo" * 1_000 + '">'
    document = read_bytes(f"<p>a{picture}b</p>".encode(), "a.html")
    assert (document.text, document.pages_skipped) == ("ab", 0)


@pytest.mark.parametrize(
    "hostile", ["<math> <mfrac>", "<b>", "<table><tr><td>", "<p><i>", "<br>", "<td>", "&amp;", "<", "<!--", "<tr>"]
)
def test_time_is_linear_in_hostile_markup(hostile: str) -> None:
    started = time.process_time()
    read_bytes(f"<p>x</p>{hostile * (200_000 // len(hostile))}".encode(), "a.html")
    assert time.process_time() - started < 30


@pytest.mark.parametrize(
    ("ruby", "text"),
    [
        ("<ruby>漢字<rt>かんじ</rt></ruby>", "漢字(かんじ)"),
        ("<ruby>東<rt>とう</rt>京<rt>きょう</rt></ruby>", "東(とう)京(きょう)"),
        ("<ruby><rb>漢字</rb><rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>", "漢字(かんじ)"),
        ("<ruby>漢字<rt></rt></ruby>", "漢字"),
    ],
)
def test_how_characters_are_read_stands_in_brackets_behind_them(ruby: str, text: str) -> None:
    assert read_bytes(f"<p>彼は{ruby}を読む".encode(), "a.html").text == f"彼は{text}を読む"


def test_text_in_a_section_of_characters_is_read() -> None:
    """As books have their listings; a script in one is still none."""
    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><style>//<![CDATA[\np > q { }\n//]]></style></head>'
        "<body><pre><![CDATA[if a < b && b > c:\n    stop()]]></pre><p>End<![CDATA[]]>.</p></body></html>"
    )
    assert text_of(page) == "if a < b && b > c:\n    stop()\n\nEnd."


@pytest.mark.parametrize("element", ["noframes", "noembed", "iframe"])
def test_what_stands_there_for_old_programs_is_read_as_a_page(element: str) -> None:
    """A browser takes it for text without elements; alone in a page it is what the page says."""
    inside = f"<{element}><body><h2>Pumps</h2><p>It <b>le</b>aks &amp; drips.</p></body></{element}>"
    for page in (f"<frameset cols=10><frame src=1.htm>{inside}</frameset>", f"<body><nav>Menu</nav>{inside}"):
        text = read_bytes(f"<html><head><title>x</title></head>{page}</html>".encode(), "a.html").text
        assert text.endswith("Pumps\n\nIt leaks & drips.")
    text = read_bytes(f"<p>Seen.</p>{inside}".encode(), "a.html").text
    assert text == "Seen."


@pytest.mark.parametrize("attribute", ["shadowrootmode=open", 'shadowmode="open"', "shadowroot='closed'"])
def test_what_a_part_of_a_page_shows_from_its_own_tree_is_read(attribute: str) -> None:
    """So browsers and add-ons save pages of components; other templates show nothing."""
    inner = "<template>SECRET</template><h2>Pumps</h2><template id=x>SECRET</template><p>In it</p>"
    page = f"<p>Before</p><x-part hidden><template {attribute}><p>SECRET</p></template></x-part>"
    page += (
        f"<x-part><template {attribute}>{inner}</template><p>Slotted</p></x-part><template>SECRET</template></template>"
    )
    assert text_of(f"{page}<p>After</p>") == "Before\n\nPumps\n\nIn it\n\nSlotted\n\nAfter"
