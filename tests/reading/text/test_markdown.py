"""Headings are those of CommonMark; markdown-it-py is the reference where it is installed."""

from __future__ import annotations

import random
import time

import pytest

from embedcli.reading.text.markdown import front_matter, headings
from tests.reading.test_formats import paths, read_bytes

LINES = [
    *(
        "# one",
        "## two ##",
        "text",
        "more text",
        "===",
        "---",
        "----------",
        "",
        "",
        "***",
        "* * *",
        "___",
        "   # three",
    ),
    *("- item", "+ plus", "* star", "> quote", "```", "~~~", "    code", "  indented", "#", "#no", "```python"),
    *("<!--", "-->", "<!-- one line -->", "text <!-- inline -->", "<pre>", "</pre>", "<div>", "</div>", "<br>"),
    *("<? x", "?>", "<![CDATA[", "]]>", "<script>", "</script>", '<span class="x">', "<style>", "</style>"),
]


def test_headings_are_those_of_commonmark() -> None:
    library = pytest.importorskip("markdown_it")
    reference = library.MarkdownIt("commonmark")
    choose = random.Random(7)
    for _ in range(4_000):
        text = "\n".join(choose.choice(LINES) for _ in range(choose.randrange(2, 9))) + "\n"
        if "   # three" in text and any(mark in text for mark in "-+*>"):
            continue  # in a list it is the list's, and is a heading here
        assert found(text) == expected(reference, text), text


def found(text: str) -> list[tuple[int, int]]:
    return [(text.count("\n", 0, offset), level) for offset, level, _ in headings(text, 0)]


def expected(reference: object, text: str) -> list[tuple[int, int]]:
    """Line and level of the headings with words that stand in no list or quote."""
    tokens, depth, lines = reference.parse(text), 0, []  # type: ignore[attr-defined]
    for token, inside in zip(tokens, [*tokens[1:], *tokens[-1:]], strict=True):
        depth += token.nesting * token.type.startswith(("blockquote", "bullet_list", "ordered_list"))
        if token.type == "heading_open" and not depth and inside.content.strip("# "):
            lines.append((token.map[0], int(token.tag[1])))
    return lines


@pytest.mark.parametrize(
    "false_heading",
    [
        *(
            "<!--\n# Old\n-->",
            "<pre>\n# Old\n</pre>",
            "<div>\n# Old\n</div>",
            "<script>\n# Old\n</script>",
            "```\n# Old\n```",
        ),
        *(
            "1. first\n2. Old\n---",
            "- Old\n---",
            "* Old\n  more\n---",
            "> Old\n---",
            "<details>\n<summary>x</summary>\n# Old\n</details>",
        ),
        *(
            "<!-- a\n\n# Old --> # Old",
            "~~~md\n# Old\n~~~",
            "| a |\n---",
            "<?php\n# Old\n?>",
            "<textarea>\n# Old\n\n# Old\n</textarea>",
        ),
    ],
)
def test_what_only_looks_like_a_heading_opens_no_section(false_heading: str) -> None:
    document = read_bytes(f"# Manual\n\n{false_heading}\n\n## Use\n\nText.\n".encode(), "a.md")
    assert paths(document) == ["Manual", "Manual > Use"]


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("# Pump driver {#pump}", "Pump driver"),
        ("# Pump driver {: #pump .wide}", "Pump driver"),
        ("# Pump driver {#pump .wide key=1} #", "Pump driver"),
        ('# Install <a name="install"></a>', "Install"),
        ('# <a id="install"></a>Install', "Install"),
        ("# Title <!-- omit in toc -->", "Title"),
        ("# [Linux](https://example.org/a_(b)) and [more][1]", "Linux and more"),
        ("# ![logo](logo.png) Name", "logo Name"),
        ("# The `Vec<int>` *type*", "The Vec<int> type"),
        ("# 2 \\* 3 &amp; snake\\_case", "2 * 3 & snake_case"),
        ("# Sets {a, b}", "Sets {a, b}"),
        ("# a < b and c > d", "a < b and c > d"),
        ("Two lines\nof a title\n===", "Two lines of a title"),
        ('<h1 align="center">Name</h1>', "Name"),
        ('<p align="center">\n<h1><img src="x.png"/> Name</h1>\n</p>', "Name"),
    ],
)
def test_a_heading_is_the_words_that_a_reader_sees(heading: str, words: str) -> None:
    document = read_bytes(f"{heading}\n\ntext\n".encode(), "a.md")
    assert (document.title, paths(document)) == (words, [words])


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ("---\ntitle: Return policy\nlayout: post\n---\n", "Return policy"),
        ("---\nlayout: post\nTitle:   Return policy   # a note\n---\n", "Return policy"),
        ('---\ntitle: "Return: \\"policy\\""\n---\n', 'Return: "policy"'),
        ("---\ntitle: 'Seller''s policy'\n...\n", "Seller's policy"),
        ("---\ntitle: >-\n  Return\n  policy\nlayout: post\n---\n", "Return policy"),
        ('+++\ntitle = "Return policy"\n+++\n', "Return policy"),
        ("---\nauthor:\n  title: none of the page\n---\n", None),
        ("---\nsubtitle: other\n---\n", None),
        ("---\ntitle:\n---\n", None),
        ("---\ntitle: never closed\n", None),
    ],
)
def test_the_title_may_stand_in_the_front_matter(settings: str, title: str | None) -> None:
    document = read_bytes(f"{settings}Goods can be returned.\n\n## Deadlines\n\nFourteen days.\n".encode(), "a.md")
    assert (document.title, paths(document)) == (title, ["Deadlines"])


def test_a_heading_of_the_first_level_goes_before_the_front_matter() -> None:
    assert read_bytes(b"---\ntitle: short\n---\n# The long title\n", "a.md").title == "The long title"


def test_front_matter_is_text_of_the_document_and_no_heading() -> None:
    text = "---\ntitle: x\n---\n"
    assert front_matter(text) == (len(text), "x")
    assert front_matter("--- \nno settings\n---\n") == (0, None)


@pytest.mark.parametrize(
    "hostile",
    [
        "<!--\n",
        "<div>\n",
        "# <a",
        "# `",
        "# {#",
        "# \\",
        "# ![",
        "a\n",
        "1. a\n---\n",
        "<h1>",
        "<h1>x</h2>",
        "- ",
        "* ",
        "title: a\n ",
    ],
)
def test_time_is_linear_in_hostile_markdown(hostile: str) -> None:
    data = b"---\n" + hostile.encode() * (300_000 // len(hostile))
    start_s = time.process_time()
    read_bytes(data, "a.md")
    read_bytes(b"<p>\n" + data, "a.md")
    assert time.process_time() - start_s < 30
