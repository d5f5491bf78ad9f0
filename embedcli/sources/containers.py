"""Which files may be containers, by their names and by what was asked of a root.

In: a root and a path below it. Out: the rule by which its records are read; None for a file that is one document.
Not here: whether a file really is one, which its content says (reading/containers/opened.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from embedcli.records import PLAIN_RULE, RecordRule, Root
from embedcli.sources.filters import compile_patterns, verdict

COMPRESSED = frozenset({".gz", ".zst"})
SUFFIXES = frozenset({".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".ipc", ".mbox"})


def suffix_of(path: str) -> str:
    """The suffix that tells the format, in lower case: `.jsonl` of `tickets.jsonl.gz`."""
    name = PurePosixPath(path.lower())
    return PurePosixPath(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


@dataclass(frozen=True)
class Asked:
    """How the records of a file are read; `named`: somebody said that it holds records."""

    rule: RecordRule
    named: bool


class RuleBook:
    """The rules of one root."""

    def __init__(self, root: Root) -> None:
        self._stream = root.stream
        named = [rule for rule in root.records if rule.pattern]
        self._named = [(compile_patterns([rule.pattern], flag="--records"), rule) for rule in reversed(named)]
        rule = next((rule for rule in reversed(root.records) if not rule.pattern), PLAIN_RULE)
        self.default = Asked(rule, named=root.stream)

    def of(self, path: str) -> Asked | None:
        """The last rule whose pattern matches; files of records and mailboxes need none."""
        if self._stream:
            return self.default
        for patterns, rule in self._named:
            if verdict(patterns, path):
                return Asked(rule, named=True)
        return self.default if suffix_of(path) in SUFFIXES else None
