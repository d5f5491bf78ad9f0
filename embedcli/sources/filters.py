"""What the filters of a root leave out: --include, --exclude and ignore files, in gitignore syntax.

In: a Root, and paths below it (`printable`, as in Source). Out: whether a path is left out, here while the
walk goes down and for a known path that the walk did not yield. Not here: the walks (walk.py, buckets/walk.py).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable

from embedcli.errors import UsageError
from embedcli.records import Root
from embedcli.sources.brackets import take_out_sets
from embedcli.urls import is_url

LOCK_FILE = "~$"
"""How the names of office programs' lock files begin. Hidden names such as `.~lock.a#` are left out in any case."""

PROGRAM_FOLDERS = frozenset({"node_modules", "__pycache__"})

EMBEDCLIIGNORE = ".embedcliignore"
GITIGNORE = ".gitignore"
IGNORE_FILES = (GITIGNORE, EMBEDCLIIGNORE)

Patterns = list[tuple[re.Pattern[str], bool]]
"""Expressions for an entry's path (a folder's ends in `/`), selecting or taking back; the last line first."""


class Filter:
    """Decides which paths below a root its filters leave out. Holds the ignore files of the folder last entered and of
    those above it.

    Asked in walk order, it reads each ignore file once. It can be asked about a path that is not on disk any more: the
    ignore files that its folders have now decide. An ignore file that cannot be read leaves nothing out; the walk has
    put its folder among the unlisted ones.
    """

    def __init__(self, root: Root, *, note_matches: bool = False, ignore_files: Collection[str] | None = None) -> None:
        """`note_matches`: also find out which patterns of flags match nothing (see `unmatched`). `ignore_files`: the
        paths of all that there are, where that is known: to ask a bucket for each would take long."""
        self._include = compile_patterns(root.include, flag="--include")
        self._exclude = compile_patterns(root.exclude, flag="--exclude")
        self._default_excludes = root.default_excludes
        self._unmatched = {
            pattern: compile_patterns([pattern.lstrip("!")], flag=flag)
            for flag, patterns in (("--include", root.include), ("--exclude", root.exclude))
            for pattern in patterns
            if note_matches
        }
        self._ignore_names = ignore_names(root)
        self._ignore_files = ignore_files
        self._levels: list[tuple[str, Patterns]] = []
        self._root_path = root.path
        self._asked: list[str] | None = None

    def leaves_out(self, path: str) -> bool:
        """Whether a filter leaves out a file of this path, by its own name or by that of a folder above it."""
        *folders, name = path.split("/")
        return not self._come_to(folders) or hidden(name) or self.leaves_file_out(path)

    def comes_to(self, folder: str) -> bool:
        """Whether the filters let the walk enter a folder of this path."""
        return self._come_to(folder.split("/"))

    @property
    def unmatched(self) -> list[str]:
        """The patterns of flags that have matched no file and no folder so far; none without `note_matches`."""
        return list(self._unmatched)

    def _note_matches(self, path: str) -> None:
        for pattern in [name for name, compiled in self._unmatched.items() if verdict(compiled, path) is not None]:
            del self._unmatched[pattern]

    def leaves_file_out(self, path: str) -> bool:
        """Whether the filters leave out a file of the folder last entered."""
        if self._unmatched:
            self._note_matches(path)
        if self._include and not _selected(self._include, path):
            return True
        return self._ignored(path)

    def leaves_folder_out(self, folder: str) -> bool:
        """Whether the filters leave out a folder in the folder last entered: then the walk does not enter it."""
        if self._unmatched:
            self._note_matches(folder + "/")
        return self._ignored(folder + "/")

    def enter(self, folder: str, directory: str) -> None:
        """Read the ignore files of a folder; `directory` is what the operating system calls it."""
        lines: list[str] = []
        for name in self._ignore_names:
            path = f"{folder}/{name}" if folder else name
            if self._ignore_files is None or path in self._ignore_files:
                lines += _ignore_lines(f"{directory}/{name}")
        if lines:
            self._levels.append((folder, compile_patterns(lines)))

    def leave(self, folder: str) -> None:
        """Forget the ignore files of a folder."""
        if self._levels and self._levels[-1][0] == folder:
            self._levels.pop()

    def _ignored(self, path: str) -> bool:
        if self._default_excludes and _excluded_by_default(path):
            return True
        if self._exclude and verdict(self._exclude, path):
            return True
        for folder, patterns in reversed(self._levels):
            ignored = verdict(patterns, path[len(folder) + 1 :] if folder else path)
            if ignored is not None:
                return ignored
        return False

    def _come_to(self, folders: list[str]) -> bool:
        """Enter these folders, one after the other; False at the first that is left out."""
        entered = self._return_to(folders)
        for part in folders[len(entered) :]:
            folder = "/".join([*entered, part])
            if hidden(part) or self.leaves_folder_out(folder):
                return False
            entered.append(part)
            self._try_enter(folder)
        return True

    def _return_to(self, folders: list[str]) -> list[str]:
        """Leave the folders that were asked about and are not among these; those that stay entered."""
        if self._asked is None:
            self._asked = []
            self._try_enter("")
        while self._asked != folders[: len(self._asked)]:
            self.leave("/".join(self._asked))
            self._asked.pop()
        return self._asked

    def _try_enter(self, folder: str) -> None:
        try:
            self.enter(folder, f"{self._root_path}/{folder}" if folder else self._root_path)
        except OSError:
            return


def ignore_names(root: Root) -> tuple[str, ...]:
    """How the ignore files of a root are called."""
    return IGNORE_FILES if root.gitignore else (EMBEDCLIIGNORE,)


def compile_patterns(lines: Iterable[str], *, flag: str = "") -> Patterns:
    """Lines in gitignore syntax. One that can match nothing is passed over, as git does; in a flag, refused.

    The patterns of a flag match letters of either case, those of ignore files only the very letters, as git does.
    """
    lines = list(lines)
    if not lines:
        return []
    from pathspec.patterns.gitignore import GitIgnorePatternError

    patterns: Patterns = []
    for line in lines:
        try:
            patterns += _compiled(line)
        except (GitIgnorePatternError, re.error, ValueError) as error:
            if flag:
                raise UsageError(f"`{flag}` is no pattern: `{line}`", f"try `{flag} '*.pdf'`") from error
    if flag:
        patterns = [(re.compile(regex.pattern, regex.flags | re.IGNORECASE), selects) for regex, selects in patterns]
    return patterns[::-1]


def refuse_lists(patterns: Iterable[str], *, flag: str) -> None:
    """Raise UsageError for a flag that was given several patterns as one, `*.pdf,*.md`."""
    for pattern in patterns:
        parts = re.split(r"(?<!\\),(?! )", pattern)
        if len(parts) > 1:
            again = " ".join(f"{flag} '{part}'" for part in parts)
            raise UsageError(
                f"`{flag}` takes one pattern, not a list: `{pattern}`",
                f"repeat the flag: `{again}`; a comma in a name is written `\\,`",
            )


def _compiled(line: str) -> Patterns:
    """The line's expression; none for a comment. Raises ValueError or one of pathspec's for what matches nothing.

    pathspec hands brackets on to `re`, which reads them otherwise: each is a stand-in to it, and put in afterwards.
    """
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    # pathspec takes `a/**/` for `a/`
    line = f"{line.rstrip()}*/" if line.rstrip().endswith("/**/") else line
    line, sets = take_out_sets(line)
    pattern = GitIgnoreSpecPattern(line)
    if pattern.include is None or pattern.regex is None:
        return []
    if not sets:
        return [(pattern.regex, pattern.include)]
    regex = re.sub("|".join(sets), lambda stand_in: sets[stand_in[0]], pattern.regex.pattern)
    return [(re.compile(regex), pattern.include)]


def verdict(patterns: Patterns, path: str) -> bool | None:
    """What the last pattern that matches this very entry says; None where none does."""
    for regex, selects in patterns:
        if any(_of_this_entry(match, path) for match in regex.finditer(path)):
            return selects
    return None


def _of_this_entry(match: re.Match[str], path: str) -> bool:
    """Whether a match is one of the entry itself: folders are asked about one by one on the way down.

    pathspec's expressions match with a group at a folder's `/`, and then also what lies below it; without the
    group what lies below a `/` at their end (`a/**`), and then also that folder itself.
    """
    at_end = match.end() == len(path)
    return at_end if match.lastgroup else not (at_end and path.endswith("/"))


def _selected(include: Patterns, path: str) -> bool:
    """An include list selects a file by its own path or by that of a folder above it."""
    ends = [i for i, letter in enumerate(path) if letter == "/"]
    selected = verdict(include, path)
    return selected if selected is not None else any(verdict(include, path[: end + 1]) for end in reversed(ends))


def _ignore_lines(file: str) -> list[str]:
    if is_url(file):
        from embedcli.sources.buckets.fetched import object_text

        data = object_text(file) or b""
        return data.decode("utf-8-sig", "replace").splitlines()
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            return []
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            return stream.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _excluded_by_default(path: str) -> bool:
    """Every path of a walk is asked about: a look at its last name costs a tenth of what a pattern would."""
    name = path.rstrip("/").rpartition("/")[2]
    return name.startswith(LOCK_FILE) or (path.endswith("/") and name in PROGRAM_FOLDERS)


def hidden(name: str) -> bool:
    """Whether a name is left out for its leading dot."""
    return name.startswith(".")
