"""Hyphens at line ends of a PDF: each rule has its test, U+0002 stands for a hyphen and the line end behind it."""

from __future__ import annotations

import pytest

from embedcli.reading.text.hyphens import MOST_SEARCHED, NO_SPELLINGS, find_spellings, join_words, mark_cuts


def joined(text: str, *elsewhere: str) -> str:
    return join_words(text, find_spellings([text, *elsewhere]))


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("an exam\x02ple", "an example"),
        ("die Umwälz\x02pumpe", "die Umwälzpumpe"),
        ("dell'a\x02mico", "dell'amico"),
        ("漢\x02字", "漢字"),
    ],
)
def test_a_word_that_was_broken_is_joined(cut: str, whole: str) -> None:
    assert joined(cut) == whole


def test_a_word_that_is_cut_in_two_places_is_joined_in_both() -> None:
    assert joined("EL PRO\x02GRAMA, DEL PROGRA\x02MA", "el programa") == "EL PROGRAMA, DEL PROGRAMA"


@pytest.mark.parametrize("cut", ["TX\x02450", "COVID\x0219", "Müller\x02Lang", "IT\x02Abteilung", "PDF\x02files"])
def test_a_hyphen_stays_before_a_capital_or_a_digit_and_behind_capitals(cut: str) -> None:
    assert joined(cut) == cut.replace("\x02", "-")


@pytest.mark.parametrize("cut", ["a T\x02shirt", "an e\x02mail", "x\x02axis"])
def test_a_hyphen_stays_behind_a_single_letter(cut: str) -> None:
    assert joined(cut) == cut.replace("\x02", "-")


@pytest.mark.parametrize(
    "cut",
    [
        "info@our\x02firm.example",
        "https://example.com/user\x02guide/index.html",
        "(www.our\x02firm.example)",
        "/usr/share/user\x02guide",
        "the file read\x02me.txt",
        "with --dry\x02run",
    ],
)
def test_a_hyphen_stays_within_an_address(cut: str) -> None:
    assert joined(cut) == cut.replace("\x02", "-")


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("Ein\x02und Ausgabe", "Ein- und Ausgabe"),
        ("Haupt\x02oder Nebenkosten", "Haupt- oder Nebenkosten"),
        ("pre\x02and post-war", "pre- and post-war"),
        ("in\x02en uitvoer", "in- en uitvoer"),
        ("in\x02och utgång", "in- och utgång"),
    ],
)
def test_before_a_conjunction_the_hyphen_stays_with_a_blank(cut: str, whole: str) -> None:
    assert joined(cut) == whole


def test_the_words_of_the_document_win_over_the_rules() -> None:
    assert joined("a well\x02known thing", "well-known") == "a well-known thing"
    assert joined("a well\x02known thing", "well-known, wellknown") == "a wellknown thing"
    assert joined("ten thou\x02and", "thouand of them") == "ten thouand"
    assert joined("INTER\x02NATIONAL", "international") == "INTERNATIONAL"
    assert joined("INTER\x02NATIONAL") == "INTER-NATIONAL"
    assert joined("in Post\x02Script", "PostScript") == "in PostScript"
    assert joined("in Post\x02Script", "postscript") == "in Post-Script"
    assert joined("the debian\x02installer", "debian\u2011installer") == "the debian-installer"
    assert joined("see hyper\x02ref.cfg", "of hyperref") == "see hyperref.cfg"
    assert joined("at https://a.example/user\x02guide", "userguide") == "at https://a.example/user-guide"
    assert joined("an e\x02mail", "e-mail or email") == "an email"


@pytest.mark.parametrize("word", ["e\x02mail", "Post\x02Script"])
def test_many_cut_words_are_found_as_few_are(word: str) -> None:
    others = " ".join(f"x\x02{chr(97 + n // 26)}{chr(97 + n % 26)}b" for n in range(MOST_SEARCHED + 1))
    for text in (word, f"{word} {others}"):
        assert joined(text, "(email, PostScript)").startswith(word.replace("\x02", ""))
        assert joined(text, "emails, of 3PostScripts").startswith(word.replace("\x02", "-"))


@pytest.mark.parametrize("cut", ["\x02", "(\x02)", "a \x02b", "12\x02mm", "a\x02 b"])
def test_a_cut_that_stands_in_no_word_is_a_hyphen(cut: str) -> None:
    assert joined(cut) == cut.replace("\x02", "-")


@pytest.mark.parametrize("hyphen", ["\u2010", "\u2011", "\xad"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n", " \r\n"])
def test_other_hyphens_at_line_ends_are_as_good(hyphen: str, line_end: str) -> None:
    assert join_words(mark_cuts(f"inter{hyphen}{line_end}national"), NO_SPELLINGS) == "international"


def test_a_drawn_soft_hyphen_is_a_hyphen() -> None:
    assert mark_cuts("a well\xadknown thing") == "a well-known thing"


def test_other_hyphens_within_a_line_stay_as_they_are() -> None:
    assert mark_cuts("well\u2010known 1\u20112") == "well\u2010known 1\u20112"
