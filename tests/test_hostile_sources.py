"""Sources that would stop, hang or swell a run: each gets its status and reason, the good beside it are indexed."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import psutil
import pypdf
import pytest

from tests.faults import FileGrowsForEver, FileGrowsOnce, FileVanishes, ReaderSegfaults, SlowReader
from tests.pdf_files import FIRST_EXTRA, HELVETICA, IMAGE, lines, pdf
from tests.unprivileged import as_nobody
from tests.workshop import Workshop, words

LONG = os.environ.get("EMBEDCLI_TESTS_LONG") == "1"
WORDS = words(60)
CHINESE = "汉字文本很好，这是一个说明文件。请在安装之前仔细阅读。" * 12
JAPANESE = "これは日本語の説明書です。設置する前によくお読みください。" * 12
SCAN = pdf(b"q 100 0 0 100 0 0 cm /Im0 Do Q", resources=b"/XObject<</Im0 %d 0 R>>" % FIRST_EXTRA, objects=[IMAGE])
FRENCH = "Où était-il passé ? L'été à la forêt, près de l'hôtel fermé depuis Noël.\n" * 12


def protected(password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(lines(b"Behind a lock"))))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def bomb() -> bytes:
    """A page whose content unpacks to 300 MB of blanks."""
    packed = zlib.compress(b" " * 300_000_000, 9)
    stream = b"<</Length %d/Filter/FlateDecode>>stream\n" % len(packed) + packed + b"\nendstream"
    whole = pdf(lines(b"x"), resources=HELVETICA)
    start = whole.index(b"<</Length")
    return whole[:start] + stream + whole[whole.index(b"endstream", start) + len(b"endstream") :]


def loop() -> bytes:
    """The tree of pages is its own child."""
    return (
        b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Count 3/Kids[2 0 R 2 0 R]>>endobj\ntrailer<</Root 1 0 R>>\n"
    )


HOSTILE: dict[str, tuple[bytes, tuple[str, str | None]]] = {
    "truncated.pdf": (pdf(lines(b"Some text of a page"))[:120], ("failed", "damaged")),
    "locked.pdf": (protected("secret"), ("failed", "password")),
    "open.pdf": (protected(""), ("indexed", None)),
    "scan.pdf": (SCAN, ("failed", "no_text")),
    "loop.pdf": (loop(), ("failed", "damaged")),
    "login-page.pdf": (b"<html>please log in</html>", ("failed", "damaged")),
    "pdf-inside.txt": (pdf(lines(b"A manual under another name")), ("indexed", None)),
    "gb18030.txt": (CHINESE.encode("gb18030"), ("indexed", None)),
    "big5.txt": ("這是說明文件，請在安裝之前仔細閱讀。".encode("big5") * 12, ("indexed", None)),
    "shift-jis.txt": (JAPANESE.encode("cp932"), ("indexed", None)),
    "utf-16-bom.txt": (WORDS.encode("utf-16"), ("indexed", None)),
    "utf-16-le.txt": (WORDS.encode("utf-16-le"), ("indexed", None)),
    "latin-1.txt": (FRENCH.encode("latin-1"), ("indexed", None)),
    "nul.txt": (WORDS.encode().replace(b" ", b"\0", 3), ("indexed", None)),
    "surrogates.txt": (WORDS.encode() + b"\xed\xa0\x80" + WORDS.encode(), ("indexed", None)),
    "one-line.txt": (b"word " * 1_000_000, ("indexed", None)),
    "binary.txt": (bytes(range(256)) * 40, ("skipped", "not_text")),
    "empty.txt": (b"", ("skipped", "empty")),
    "blank.txt": (b" \n\t\n", ("skipped", "empty")),
    "-rf.txt": (WORDS.encode(), ("indexed", None)),
    "two\nlines.txt": (WORDS.encode(), ("indexed", None)),
    "good.txt": (WORDS.encode(), ("indexed", None)),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("hostile"), reading_processes=True)
    for name, (data, _) in HOSTILE.items():
        shop.write(name, data)
    raw = os.fsencode(shop.docs) + b"/caf\xe9.txt"
    with open(raw, "wb") as file:
        file.write(WORDS.encode())
    os.mkfifo(shop.docs / "fifo.txt")
    (shop.docs / "nowhere.txt").symlink_to("not-there.txt")
    (shop.docs / "cycle.txt").symlink_to("cycle.txt")
    (shop.docs / "around").symlink_to(".")
    (shop.docs / "zeros.txt").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(shop.docs):  # the whole path may be too long
        listening.bind("socket.txt")
    shop.summary = shop.ingest()  # type: ignore[attr-defined]
    return shop


@pytest.mark.parametrize("name", HOSTILE)
def test_each_has_its_status_and_reason(shop: Workshop, name: str) -> None:
    row = shop.documents()[name]
    assert (row["status"], row["reason"]) == HOSTILE[name][1]
    assert row["attempts"] == 1


def test_what_is_no_file_is_never_opened_and_a_name_that_is_not_utf8_is_no_trouble(shop: Workshop) -> None:
    rest = {path: (row["status"], row["reason"]) for path, row in shop.documents().items() if path not in HOSTILE}
    assert rest == {
        "caf%E9.txt": ("indexed", None),
        "cycle.txt": ("failed", "broken_link"),
        "fifo.txt": ("skipped", "not_a_file"),
        "nowhere.txt": ("failed", "broken_link"),
        "socket.txt": ("skipped", "not_a_file"),
        "zeros.txt": ("skipped", "not_a_file"),
    }


def test_nothing_in_the_index_is_mojibake(shop: Workshop) -> None:
    text = {row["path"]: row["text"] for row in shop.rows(["path", "text", "chunk_index"]) if row["chunk_index"] == 0}
    assert text["gb18030.txt"].startswith("汉字文本很好")
    assert text["big5.txt"].startswith("這是說明文件")
    assert text["shift-jis.txt"].startswith("これは日本語")
    assert text["latin-1.txt"].startswith("Où était-il passé")
    assert text["utf-16-le.txt"] == text["utf-16-bom.txt"] == text["good.txt"]
    assert not any("\0" in row["text"] for row in shop.rows(["path", "text"]))
    assert not any("\ufffd" in row["text"] for row in shop.rows(["path", "text"]) if row["path"] != "surrogates.txt")


def test_the_second_night_reads_none_of_them_again(shop: Workshop) -> None:
    before = shop.embedded
    summary = shop.ingest()
    assert summary.exit_code == 0 and shop.embedded == before
    assert summary.sources["unchanged"] == len(HOSTILE) + 6


def test_a_decompression_bomb_costs_only_itself(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, reading_processes=True)
    shop.write("bomb.pdf", bomb())
    shop.write("good.txt", WORDS)
    started = time.monotonic()
    shop.ingest()
    assert time.monotonic() - started < 120
    rows = shop.documents()
    assert rows["good.txt"]["status"] == "indexed"
    assert (rows["bomb.pdf"]["status"], rows["bomb.pdf"]["reason"]) == ("failed", "no_text")
    assert not [child for child in psutil.Process().children(recursive=True) if child.name().startswith("python")]


def test_five_thousand_pages_and_a_line_of_500_mb_swell_no_reader(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, reading_processes=True)
    shop.write("pages.pdf", pdf(*[lines(b"Page %d of a manual without end." % page) for page in range(5_000)]))
    with (shop.docs / "line.txt").open("wb") as line:
        for _ in range(500):
            line.write(b"word " * 200_000)
    shop.write("good.txt", WORDS)
    samples: list[int] = []
    done = threading.Event()
    watcher = threading.Thread(target=watch_children, args=(samples, done))
    watcher.start()
    shop.ingest()
    done.set()
    watcher.join()
    rows = {name: (row["status"], row["reason"]) for name, row in shop.documents().items()}
    assert rows == {
        "good.txt": ("indexed", None),
        "line.txt": ("skipped", "too_large"),
        "pages.pdf": ("indexed", None),
    }
    assert 0 < max(samples) < 400 << 20
    assert max(row["page_end"] or 0 for row in shop.rows(["page_end"])) == 5_000


@pytest.mark.skipif(not LONG, reason="up to ten minutes: EMBEDCLI_TESTS_LONG=1")
def test_a_line_of_500_mb_that_was_asked_for_costs_its_own_reader(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, reading_processes=True)
    with (shop.docs / "line.txt").open("wb") as line:
        for _ in range(500):
            line.write(b"word " * 200_000)
    shop.write("good.txt", WORDS)
    shop.ingest(max_file_bytes=1 << 30)
    assert statuses(shop)["good.txt"] == ("indexed", None)
    assert statuses(shop)["line.txt"][1] in ("out_of_memory", "timeout")


def watch_children(samples: list[int], done: threading.Event) -> None:
    """The RSS of the largest child, in bytes, five times a second; of one that has begun its program, for until then
    it has the memory of this process."""
    ours = psutil.Process().cmdline()
    while not done.wait(0.2):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline() != ours:
                    samples.append(child.memory_info().rss)


DOUBLES = [SlowReader, ReaderSegfaults, FileVanishes, FileGrowsOnce, FileGrowsForEver]


@pytest.mark.parametrize("double", DOUBLES)
def test_a_reader_or_a_file_that_fails_costs_its_own_file_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, double: Any
) -> None:
    monkeypatch.setattr("embedcli.run.readers.ReadingWork", double)
    shop = Workshop(tmp_path, reading_processes=True)
    for name in ("a.txt", "fault.txt", "z.txt"):
        shop.write(name, WORDS + name)
    summary = shop.ingest()
    rows = {name: (row["status"], row["reason"]) for name, row in shop.documents().items()}
    assert rows.pop("fault.txt") == double.outcome
    assert summary.exit_code == (0 if double.outcome[0] == "indexed" else 3)
    assert set(rows.values()) == {("indexed", None)}
    if double is FileGrowsOnce:
        assert shop.documents()["fault.txt"]["size"] == (shop.docs / "fault.txt").stat().st_size
        assert any("One line more" in row["text"] for row in shop.rows())


def test_what_a_user_may_not_read_is_failed_or_stale_and_comes_back(tmp_path: Path) -> None:
    warm = Workshop(tmp_path / "warm")
    warm.write("a.txt", WORDS)
    warm.ingest()
    shop = Workshop(tmp_path / "shop")
    for name in ("open.txt", "closed.txt", "later.txt", "folder/a.txt"):
        shop.write(name, WORDS + name)
    for path in (tmp_path, shop.docs.parent, shop.docs):
        path.chmod(0o777)
    (shop.docs / "closed.txt").chmod(0)

    def first() -> None:
        assert shop.ingest().exit_code == 3
        assert statuses(shop)["closed.txt"] == ("failed", "permission")

    def second() -> None:
        assert shop.ingest(rehash=True).exit_code == 3
        assert statuses(shop) == {
            "open.txt": ("indexed", None), "closed.txt": ("failed", "permission"),
            "later.txt": ("stale", "permission"), "folder/a.txt": ("stale", "permission"),
            "folder": ("failed", "permission"),
        }  # fmt: skip
        assert {row["path"] for row in shop.rows()} == {"open.txt", "later.txt", "folder/a.txt"}
        assert shop.ingest().exit_code == 0, "known trouble is no news"

    as_nobody(tmp_path, first)
    (shop.docs / "later.txt").chmod(0)
    (shop.docs / "folder").chmod(0)
    as_nobody(tmp_path, second)
    for path in (shop.docs / "closed.txt", shop.docs / "later.txt", shop.docs / "folder"):
        path.chmod(0o755)
    shop.ingest()
    assert set(statuses(shop).values()) == {("indexed", None)}


def statuses(shop: Workshop) -> dict[str, tuple[str, str | None]]:
    return {path: (row["status"], row["reason"]) for path, row in shop.documents().items()}


def test_a_folder_of_hostile_files_ends_by_the_program_itself(shop: Workshop, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedcli", "ingest", str(shop.docs), "--index", str(tmp_path / "index"), "--json"]
    here = Path(__file__).resolve().parent.parent
    ran = subprocess.run([*command, "--model", "minilm"], capture_output=True, text=True, cwd=here, timeout=300)
    assert ran.returncode == 3, ran.stderr
    assert "Traceback" not in ran.stderr
