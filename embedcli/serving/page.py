"""The page at `/`: one field, and passages with their sources. It is whole as it comes, without a script or an asset.

In: what was asked, what was found. Out: HTML; everything from the index is escaped.
Not here: the search (searching.py), the files behind its links (files.py).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from embedcli.search.searcher import Found, Hit
from embedcli.search.shown import Excerpt, excerpt, why

LETTERS = 420
HITS, MOST_HITS = 10, 100
STYLE = """
:root { color-scheme: light dark; --ink: #1a1c1e; --soft: #5c6370; --line: #d5d9de; --page: #fcfcfd; --link: #0b57a4;
  --mark: #ffe89a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9aa3ad; --line: #363c43; --page: #15181b; --link: #8ec2f5; --mark: #6a5600; }
}
* { box-sizing: border-box; }
body { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
form { display: flex; flex-wrap: wrap; gap: .5rem; margin-bottom: 1rem; }
input, button { font: inherit; color: inherit; padding: .55rem .75rem; border: 1px solid var(--line);
  border-radius: .4rem; background: transparent; min-width: 0; }
input:focus-visible, button:focus-visible, a:focus-visible, summary:focus-visible { outline: 2px solid var(--link);
  outline-offset: 1px; }
[name=q] { flex: 1 1 20rem; } [name=folder] { flex: 1 1 8rem; }
button { background: var(--link); border-color: var(--link); color: var(--page); cursor: pointer; }
a { color: var(--link); } h1 { font-size: 1.05rem; margin: 0 0 .75rem; } h2 { font-size: 1rem; margin: 0; }
ol { list-style: none; padding: 0; margin: 0 0 1rem; } li { padding: 1rem 0; border-top: 1px solid var(--line); }
p { margin: .35rem 0; overflow-wrap: anywhere; } .soft { color: var(--soft); font-size: .875rem; }
mark { background: var(--mark); color: inherit; border-radius: .15rem; } h2 { overflow-wrap: anywhere; }
summary { cursor: pointer; } pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: .5rem 0 0; }
.problem { border-left: 3px solid #c2410c; padding-left: .75rem; }
"""
DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{DIGEST}'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Asked:
    """What stands in the address: the query, the folder, how many passages."""

    query: str = ""
    folder: str = ""
    count: int = HITS

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Asked:
        count = parameters.get("n", "")
        number = int(count) if count.isascii() and count.isdecimal() and len(count) < 5 else HITS
        return cls(
            parameters.get("q", "").strip(), parameters.get("folder", "").strip(), max(1, min(number, MOST_HITS))
        )


@dataclass(frozen=True)
class About:
    """The index: its name, the folders to choose from, how many passages it has."""

    name: str
    folders: tuple[str, ...] = ()
    passages: int = 0


Linked = Callable[[Mapping[str, Any]], str | None]
"""The address of the document of a row; None where it is not to be had."""


def page(asked: Asked, about: About, found: Found | None, linked: Linked, problem: str = "") -> str:
    title = f"{asked.query} - {about.name}" if asked.query else about.name
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<h1>{escape(about.name)}</h1>
<form role="search">
<input type="search" name="q" value="{escape(asked.query)}" aria-label="What to look for" placeholder="What to look for"
 autofocus required>
<input name="folder" value="{escape(asked.folder)}" list="folders" aria-label="Only in this folder"
 placeholder="Any folder">
<datalist id="folders">{"".join(f'<option value="{escape(folder)}">' for folder in about.folders)}</datalist>
<button>Search</button>
</form>
{_problem(problem)}{_results(asked, found, linked) if found else _welcome(about)}
</html>
"""


def _problem(problem: str) -> str:
    return f'<p class="problem" role="alert">{escape(problem)}</p>\n' if problem else ""


def _welcome(about: About) -> str:
    advice = 'Ask in your own words, in any language. Words in "quotes" must be in the passage.'
    return f'<p class="soft">{about.passages:,} passages. {advice}</p>'


def _results(asked: Asked, found: Found, linked: Linked) -> str:
    if not found.hits:
        return '<p role="status">Nothing found.</p>'
    items = "".join(f"<li>{_item(hit, found.terms, linked(hit.row))}</li>\n" for hit in found.hits)
    return f"<ol>\n{items}</ol>\n{_more(asked, found)}"


def _more(asked: Asked, found: Found) -> str:
    if len(found.hits) < asked.count or asked.count >= MOST_HITS:
        return ""
    fields = {"q": asked.query, "folder": asked.folder, "n": str(min(MOST_HITS, asked.count + HITS))}
    return f'<p><a href="/?{escape(urlencode(fields))}">More passages</a></p>'


def _item(hit: Hit, terms: frozenset[str], address: str | None) -> str:
    row = hit.row
    name = escape(row["title"] or row["path"])
    head = f'<a href="{escape(address)}">{name}</a>' if address else name
    reasons = why(hit)
    facts = [row["path"], *_pages(row), *([row["section"]] if row["section"] else []), f"score {hit.score:.2f}"]
    line = escape(" · ".join([*facts, *([reasons] if reasons else [])]))
    return f'<h2>{head}</h2>\n<p class="soft">{line}</p>\n{_passage(row["text"] or "", terms)}'


def _pages(row: Mapping[str, Any]) -> Iterable[str]:
    first, last = row["page_start"], row["page_end"]
    if first is not None:
        yield f"page {first}" if first == last else f"pages {first}-{last}"


def _passage(text: str, terms: frozenset[str]) -> str:
    """The best part, and the whole passage for whoever opens it."""
    part = excerpt(" ".join(text.split()), terms, LETTERS)
    shown = f"<p>{'… ' if part.is_cut_before else ''}{_marked(part)}{' …' if part.is_cut_after else ''}</p>"
    if not (part.is_cut_before or part.is_cut_after):
        return shown
    return f'{shown}\n<details><summary class="soft">Whole passage</summary><pre>{escape(text)}</pre></details>'


def _marked(part: Excerpt) -> str:
    pieces, at = [], 0
    for first, last in part.marks:
        pieces += [escape(part.text[at:first]), f"<mark>{escape(part.text[first:last])}</mark>"]
        at = last
    return "".join([*pieces, escape(part.text[at:])])


def file_address(row: Mapping[str, Any]) -> str:
    """A PDF opens at the page of the passage."""
    name = quote(row["path"].rpartition("/")[2], safe="")
    at = f"#page={row['page_start']}" if row["page_start"] is not None and name.lower().endswith(".pdf") else ""
    return f"/files/{row['chunk_id']}/{name}{at}"
