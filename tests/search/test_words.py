"""A query finds a text by the same terms, in any script, with or without accents, width and case."""

from __future__ import annotations

import pytest

from embedcli.search.words import fold, spans, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Replace part AB-12-7, then call 10.0.3.7.", "replace part ab 12 7 ab-12-7 then call 10 0 3 7 10.0.3.7"),
        ("C++ or C#, not C; F# too", "c c++ or c c# not c f f# too"),
        ("a .NET host runs x86_64", "a net .net host runs x86 64 x86_64"),
        ("§ 573 BGB, §573, €20", "§ 573 bgb § 573 € 20"),
        ("1,250 units, a,b", "1 250 1,250 units a b"),
        ("don\N{RIGHT SINGLE QUOTATION MARK}t", "don t don't"),
        ("non\N{NON-BREAKING HYPHEN}stick", "non stick non-stick"),
        ("STRASSE Straße", "strasse strasse"),
        ("Ёлка naïve Ἀθήνα", "елка naive αθηνα"),
        ("ＡＢ１２ ﬁle Ⅳ", "ab12 file iv"),
        ("co\N{SOFT HYPHEN}operate zero\N{ZERO WIDTH SPACE}width", "cooperate zerowidth"),
        ("中国人 中", "中国 国人 中"),
        ("A4判です", "a4 判で です"),
        ("パソコン ﾊﾟｿｺﾝ", "パソ ソコ コン パソ ソコ コン"),
        ("가격표", "가격 격표"),
        ("เชียงใหม่", "เชี ชีย ียง ยงใ งให ใหม หม่"),
        ("الكِتَابُ كـتاب", "الكتاب كتاب"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("... !? —", ""),
    ],
)
def test_the_terms_of_a_text(text: str, expected: str) -> None:
    assert list(terms(text)) == expected.split()


def test_voicing_marks_make_another_word() -> None:
    assert fold("ガ") != fold("カ")
    assert fold("カ\N{COMBINING KATAKANA-HIRAGANA VOICED SOUND MARK}") == fold("ガ")


def test_composed_and_decomposed_letters_are_one_word() -> None:
    assert (
        list(terms("re\N{COMBINING ACUTE ACCENT}sume\N{COMBINING ACUTE ACCENT}")) == list(terms("résumé")) == ["resume"]
    )


def test_the_words_of_a_query_are_marked_where_they_stand() -> None:
    text = "The AB-12 unit, c++ and résumé: 東京タワー, résumés"
    wanted = {*terms("ab-12 C++ resume タワー")}
    assert [text[a:b] for a, b in spans(text, wanted)] == ["AB-12", "c++", "résumé", "タワー"]


def test_a_word_of_a_compound_is_marked_alone() -> None:
    assert spans("type AB-12-7", {"12"}) == [(8, 10)]
