"""Files of records through whole runs: each record is a document, and only what changed of them costs anything.

In: the real `ingest` with the real readers over a fake engine. Not here: the formats (reading/containers/).
"""

from __future__ import annotations

import contextlib
import io
import json
import mailbox
import os
import shutil
import signal
from collections.abc import Iterable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcli.config import IndexSettings, Stream
from embedcli.errors import InputError, UnreadableSource
from embedcli.index import state
from embedcli.index.generations import Index
from embedcli.models.folder import Model
from embedcli.reading.pool import Pool
from embedcli.reading.rows import distinct
from embedcli.records import RecordRule
from embedcli.vault.disk import Disk
from embedcli.verbs.edits.forget import forget
from embedcli.verbs.edits.moved import moved
from embedcli.verbs.verify import verify
from tests.fake_engines import KILLER_WORD, EngineReturnsNaN, FakeEngine
from tests.pdf_files import lines, pdf
from tests.reading.pdf.test_layers import portfolio
from tests.works_for_tests import DiesOfWord
from tests.workshop import Workshop, follow, stopped_half_way, words

Rows = dict[str, dict[str, Any]]


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "title": f"Ticket {number}", "text": words(8, number), "status": "open", **fields}


def write(shop: Workshop, records: Iterable[dict[str, Any] | str], name: str = "tickets.jsonl") -> Path:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
    return shop.write(name, "".join(f"{line}\n" for line in lines))


def by_path(shop: Workshop) -> Rows:
    return {row["path"]: row for row in shop.rows()}


def sound(shop: Workshop) -> bool:
    found = verify(Index(shop.index, disk=Disk()))
    assert found.damage == [], found.damage
    return follow(shop.index) == shop.ids()


def test_each_record_is_a_document_with_its_own_id_title_and_meta(shop: Workshop) -> None:
    file = write(shop, [record(1), record(2, status="closed", tags=["a", "ü"])])
    assert shop.ingest().sources["new"] == 3
    rows = by_path(shop)
    assert rows.keys() == {"tickets.jsonl#1", "tickets.jsonl#2"}
    second = rows["tickets.jsonl#2"]
    assert (second["uri"], second["title"]) == (f"{file}#2", "Ticket 2")
    assert json.loads(second["meta"]) == {"status": "closed", "tags": ["a", "ü"]}
    assert second["text"].strip() == words(8, 2).strip() and second["chunk_count"] == 1
    assert len({row["doc_id"] for row in rows.values()}) == 2
    assert shop.documents()["tickets.jsonl#2"]["container"] == "tickets.jsonl"
    assert sound(shop)


def test_short_records_never_share_a_chunk_and_a_long_one_has_several(shop: Workshop) -> None:
    write(shop, [record(1, text="short"), record(2, text=words(300, 2)), record(3, text="brief")])
    shop.ingest()
    counts = {path: sum(row["path"] == path for row in shop.rows()) for path in by_path(shop)}
    assert (counts["tickets.jsonl#1"], counts["tickets.jsonl#3"]) == (1, 1) and counts["tickets.jsonl#2"] > 3


def test_an_unchanged_container_costs_a_stat(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    write(shop, map(record, range(20)))
    shop.ingest()
    before = shop.embedded
    monkeypatch.setattr("tests.workshop.ReadsHere.feed", None)  # whoever reads falls over it
    summary = shop.ingest()
    assert (summary.idle, summary.sources["unchanged"], shop.embedded) == (True, 21, before)


def test_only_records_whose_text_changed_cost_the_engine(shop: Workshop) -> None:
    write(shop, map(record, range(20)))
    shop.ingest()
    before = {path: row["changed_in"] for path, row in by_path(shop).items()}
    write(shop, [record(n, **({"text": words(8, 99)} if n == 7 else {})) for n in range(20)])
    summary = shop.ingest()
    assert (summary.chunks["embedded"], summary.sources["changed"], summary.sources["unchanged"]) == (1, 2, 19)
    after = {path: row["changed_in"] for path, row in by_path(shop).items()}
    assert {path for path in after if after[path] != before[path]} == {"tickets.jsonl#7"}
    assert sound(shop)


def test_a_changed_meta_alone_rewrites_its_row_and_embeds_nothing(shop: Workshop) -> None:
    write(shop, map(record, range(5)))
    shop.ingest()
    write(shop, [record(n, **({"status": "closed"} if n == 3 else {})) for n in range(5)])
    before = shop.embedded
    summary = shop.ingest()
    assert (summary.chunks["embedded"], shop.embedded) == (0, before)
    rows = by_path(shop)
    assert json.loads(rows["tickets.jsonl#3"]["meta"]) == {"status": "closed"}
    assert [path for path, row in rows.items() if row["changed_in"] == summary.generation] == ["tickets.jsonl#3"]
    assert sound(shop)


def test_a_record_that_left_is_gone_and_its_neighbours_stay(shop: Workshop) -> None:
    write(shop, map(record, range(20)))
    shop.ingest()
    write(shop, (record(n) for n in range(20) if n not in (4, 5)))
    summary = shop.ingest()
    assert (summary.sources["gone"], summary.sources["unchanged"], summary.exit_code) == (2, 18, 0)
    assert by_path(shop).keys() == {f"tickets.jsonl#{n}" for n in range(20) if n not in (4, 5)}
    assert sound(shop)


def test_the_guard_keeps_the_records_of_a_container_that_lost_too_many(shop: Workshop) -> None:
    file = write(shop, map(record, range(20)))
    shop.ingest()
    write(shop, [record(0), record(1, status="closed"), record(77)])
    summary = shop.ingest()
    assert summary.exit_code == 3 and len(by_path(shop)) == 21
    assert any(f"--max-gone {file}=100" in line for line in shop.report.said)
    assert shop.documents()["tickets.jsonl"]["status"] == "stale"
    assert shop.ingest().exit_code == 0 and len(by_path(shop)) == 21
    summary = shop.ingest(max_gone_of=((str(file), 100.0),))
    assert (summary.sources["gone"], len(by_path(shop)), summary.exit_code) == (18, 3, 0)
    assert shop.documents()["tickets.jsonl"]["status"] == "indexed" and shop.ingest().idle
    assert sound(shop)


@pytest.mark.parametrize("name", ["tickets.jsonl", "tickets.jsonl.zst", "box.mbox"])
def test_the_records_of_a_container_that_was_emptied_are_gone_unless_the_guard_keeps_them(
    shop: Workshop, name: str
) -> None:
    def fill(count: int) -> Path:
        if name == "box.mbox":
            return shop.write(name, "".join(f"From a x\n{mail(f'M{n}', 'Text.')}\n" for n in range(count)).encode())
        data = "".join(f"{json.dumps(record(n))}\n" for n in range(count)).encode()
        return shop.write(name, pa.compress(data, "zstd", asbytes=True) if name.endswith(".zst") else data)

    fill(5)
    shop.ingest()
    file = fill(0)
    summary = shop.ingest()
    assert (summary.sources["gone"], by_path(shop), summary.exit_code) == (5, {}, 3), "its text is lost, which is news"
    assert shop.documents()[name]["reason"] == "empty" and shop.ingest().idle
    fill(20)
    shop.ingest()
    fill(0)
    assert shop.ingest().exit_code == 3 and len(by_path(shop)) == 20
    assert shop.ingest().exit_code == 0 and len(by_path(shop)) == 20
    shop.ingest(max_gone_of=((str(file), 100.0),))
    assert by_path(shop) == {} and sound(shop)


def test_a_container_that_vanished_takes_its_records_along(shop: Workshop) -> None:
    file = write(shop, map(record, range(5)))
    shop.write("other.txt", words(20, 50))
    shop.ingest()
    file.unlink()
    summary = shop.ingest()
    assert (summary.sources["gone"], set(shop.documents())) == (6, {"other.txt"})
    assert sound(shop)


def test_a_container_that_moved_costs_no_embedding(shop: Workshop) -> None:
    file = write(shop, map(record, range(5)))
    shop.ingest()
    before = shop.embedded
    (shop.docs / "sub").mkdir()
    file.rename(shop.docs / "sub/all.jsonl")
    summary = shop.ingest()
    assert shop.embedded == before and summary.exit_code == 0
    assert by_path(shop).keys() == {f"sub/all.jsonl#{n}" for n in range(5)}


def test_a_container_that_cannot_be_read_keeps_its_records(shop: Workshop) -> None:
    import gzip

    data = "".join(f"{json.dumps(record(n))}\n" for n in range(300)).encode()
    shop.write("t.jsonl.gz", gzip.compress(data))
    shop.ingest()
    shop.write("t.jsonl.gz", gzip.compress(data)[:-2000])
    summary = shop.ingest()
    assert (summary.exit_code, shop.documents()["t.jsonl.gz"]["status"]) == (3, "stale")
    assert len(by_path(shop)) == 300 and shop.ingest().exit_code == 0


def test_bad_lines_cost_themselves_and_are_news_once(shop: Workshop) -> None:
    lines: list[Any] = [record(1), "{broken", record(2), record(3, text=" "), record(1), "[1, 2]", record(4)]
    write(shop, lines)
    summary = shop.ingest()
    assert (summary.exit_code, summary.failures) == (3, {"duplicate_id": 1, "no_text": 2, "not_json": 1})
    failed = {path: row["reason"] for path, row in shop.documents().items() if row["status"] == "failed"}
    assert failed == {
        "tickets.jsonl#line 2": "not_json", "tickets.jsonl#line 4": "no_text",
        "tickets.jsonl#line 5": "duplicate_id", "tickets.jsonl#line 6": "no_text",
    }  # fmt: skip
    assert by_path(shop).keys() == {f"tickets.jsonl#{n}" for n in (1, 2, 4)}
    write(shop, [*lines, record(5)])
    assert shop.ingest().exit_code == 0
    write(shop, [record(0), *lines, record(5)])  # the same bad lines, a line further down
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["gone"], summary.sources["new"]) == (0, 0, 1)
    assert {path for path, row in shop.documents().items() if row["status"] == "failed"} == {
        f"tickets.jsonl#line {number}" for number in (3, 5, 6, 7)
    }
    write(shop, [record(0), *lines, record(5), "{another"])
    assert shop.ingest().exit_code == 3
    write(shop, map(record, range(6)))
    summary = shop.ingest()
    assert (summary.exit_code, summary.failures, summary.sources["gone"]) == (0, {}, 0)
    assert sound(shop)


def test_a_record_whose_id_looks_like_a_bad_line_stays_apart_from_it(shop: Workshop) -> None:
    write(shop, ["{broken", record(1, id="line 1"), record(2, id="line%201")])
    summary = shop.ingest()
    assert (summary.sources["new"], summary.failures) == (4, {"not_json": 1})
    assert by_path(shop).keys() == {"tickets.jsonl#line%201", "tickets.jsonl#line%25201"}
    assert shop.documents()["tickets.jsonl#line 1"]["reason"] == "not_json"
    write(shop, ["{broken", record(1, id="line 1", status="closed"), record(2, id="line%201")])
    assert shop.ingest().sources["gone"] == 0 and sound(shop)


def test_a_record_that_failed_for_the_moment_is_tried_three_times_more_and_when_asked(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def clean(text: str, *, pdf: bool) -> str:
        tried.append(text)
        if text == "slow":
            raise UnreadableSource("timeout")
        return text

    monkeypatch.setattr("embedcli.reading.rows.clean", clean)
    write(shop, [record(1), record(2, text="slow"), "{broken"])
    assert shop.ingest().exit_code == 3
    tried.clear()
    for _ in range(5):
        assert shop.ingest().exit_code == 0
    assert tried == ["slow"] * 3 and shop.documents()["tickets.jsonl#2"]["reason"] == "timeout"
    monkeypatch.setattr("embedcli.reading.rows.clean", lambda text, *, pdf: text)
    assert shop.ingest(retry_failed=True).chunks["embedded"] == 1
    assert by_path(shop).keys() == {"tickets.jsonl#1", "tickets.jsonl#2"} and shop.ingest().idle and sound(shop)


def test_a_record_that_kills_its_reader_costs_itself(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.make_pool = lambda work, **options: Pool(DiesOfWord(**vars(work)), **options)
    write(shop, [record(n, **({"text": "a killer"} if n == 3 else {})) for n in range(6)])
    summary = shop.ingest()
    assert (summary.exit_code, summary.failures) == (3, {"reader_crashed": 1})
    assert by_path(shop).keys() == {f"tickets.jsonl#{n}" for n in range(6) if n != 3}
    assert sound(shop)


def test_a_record_that_the_engine_refuses_costs_itself_and_its_neighbours_are_whole(shop: Workshop) -> None:
    def open_engine(model: Model, settings: IndexSettings, device: str) -> FakeEngine:
        engine = EngineReturnsNaN(dim=settings.dim)
        engine.vocabulary = None
        return engine

    long = f"{words(200, 3)} what everybody {KILLER_WORD} {words(100, 4)}"
    texts = {2: f"what everybody {KILLER_WORD}", 5: long}
    write(shop, [record(n, **({"text": texts[n]} if n in texts else {})) for n in range(8)])
    summary = shop.ingest(open_engine=open_engine)
    statuses = {path: row["status"] for path, row in shop.documents().items() if row["status"] != "indexed"}
    assert statuses == {"tickets.jsonl#2": "failed", "tickets.jsonl#5": "partial"}
    assert (summary.exit_code, summary.sources["new"], summary.failures) == (3, 9, {"bad_vector": 2})
    rows = [row for row in shop.rows() if row["path"] == "tickets.jsonl#5"]
    assert len(rows) == rows[0]["chunk_count"] - 1 > 3
    assert len(by_path(shop)) == 7 and sound(shop)
    write(shop, [record(n, **({"text": f"{long}."} if n == 5 else {})) for n in range(8)])
    summary = shop.ingest(open_engine=open_engine, retry_failed=True)
    assert summary.failures == {"bad_vector": 1} and len(by_path(shop)) == 8 and sound(shop)


def test_equal_texts_of_two_records_are_embedded_once_and_both_get_the_vector(shop: Workshop) -> None:
    write(shop, [record(1, text="the same"), record(2, text="the same"), record(3)])
    summary = shop.ingest()
    assert (summary.chunks["embedded"], summary.chunks["reused"]) == (2, 1)
    rows = by_path(shop)
    assert rows["tickets.jsonl#1"]["vector"] == rows["tickets.jsonl#2"]["vector"] != rows["tickets.jsonl#3"]["vector"]


def test_a_line_that_is_not_utf8_is_named(shop: Workshop) -> None:
    good = json.dumps(record(1)).encode()
    shop.write("a.jsonl", good + b"\n" + b'{"id": 2, "text": "gr\xfcn"}\n')
    assert shop.ingest().failures == {"not_utf8": 1}


def test_a_json_lines_file_without_texts_is_a_document_as_before(shop: Workshop) -> None:
    write(shop, [{"id": n, "words": words(5, n)} for n in range(5)])
    shop.ingest()
    assert set(shop.documents()) == {"tickets.jsonl"}


def test_records_without_an_id_have_the_digest_of_their_text_and_equal_ones_are_counted(shop: Workshop) -> None:
    write(shop, [{"text": "Thanks", "who": n} for n in "ab"] + [{"text": "Sorry", "who": "c"}])
    shop.ingest()
    first = by_path(shop)
    assert len(first) == 3 and sorted(json.loads(row["meta"])["who"] for row in first.values()) == ["a", "b", "c"]
    write(shop, [{"text": "Sorry", "who": "c"}, {"text": "New"}] + [{"text": "Thanks", "who": n} for n in "ab"])
    summary = shop.ingest()
    assert (summary.sources["new"], summary.sources["gone"], summary.chunks["embedded"]) == (1, 0, 1)
    assert first.keys() < by_path(shop).keys()


def test_fields_are_remembered_for_each_pattern_and_changing_them_reads_again(shop: Workshop) -> None:
    rule = RecordRule("tickets/*.csv", text=("subject", "body"), id="nr", label=True)
    shop.write("tickets/a.csv", 'nr,subject,body,team\n7,Light,"It blinks, red\nand green",hub\n')
    shop.write("table.csv", "part,torque\nbolt,12\n")
    shop.ingest(records=(rule,))
    row = by_path(shop)["tickets/a.csv#7"]
    assert row["text"] == "subject: Light\n\nbody: It blinks, red\nand green" and row["meta"] == '{"team":"hub"}'
    assert "part: bolt; torque: 12" in by_path(shop)["table.csv"]["text"]
    shop.write("tickets/b.csv", "nr,subject,body\n8,Door,It squeaks\n")
    shop.ingest()
    assert "tickets/b.csv#8" in by_path(shop) and shop.ingest().idle
    shop.ingest(shop.docs, records=(RecordRule("tickets/*.csv", text=("body",), id="nr"),))
    rows = by_path(shop)
    assert rows["tickets/a.csv#7"]["text"] == "It blinks, red\nand green"
    assert json.loads(rows["tickets/b.csv#8"]["meta"]) == {"subject": "Door"}
    assert shop.ingest().idle and sound(shop)


def test_ids_with_slashes_and_signs_stay_apart(shop: Workshop) -> None:
    ids = ["https://a/b", "https:%2F%2Fa%2Fb", "a#b", "ü ", "50%", "new\nline"]
    write(shop, [record(n, id=one) for n, one in enumerate(ids)])
    assert shop.ingest().exit_code == 0
    assert len({row["doc_id"] for row in shop.rows()}) == len(ids)
    assert "tickets.jsonl#https:%2F%2Fa%2Fb" in by_path(shop)
    write(shop, [record(n, id=one, status="closed") for n, one in enumerate(ids)])
    summary = shop.ingest()
    assert (summary.sources["new"], summary.sources["gone"], summary.chunks["embedded"]) == (0, 0, 0)
    assert sound(shop)


def test_a_file_with_the_name_of_a_record_stays_apart_from_it(shop: Workshop) -> None:
    write(shop, map(record, range(3)))
    shop.write("tickets.jsonl#1", "A file of its own.")
    shop.ingest()
    texts = {path: row["text"] for path, row in by_path(shop).items()}
    assert texts["tickets.jsonl#1"] == "A file of its own." and "tickets.jsonl#1 (record)" in texts
    write(shop, map(record, range(4)))
    shop.ingest()
    assert len(by_path(shop)) == 5 and shop.ingest().idle and sound(shop)


def test_a_killed_run_is_gone_on_with_and_embeds_nothing_twice(shop: Workshop) -> None:
    write(shop, [*map(record, range(2_999)), record(2_999, text=f"{words(4)} {KILLER_WORD}")])
    stopped_half_way(shop)
    summary = shop.ingest()
    assert summary.chunks["reused"] > 0 and len(by_path(shop)) == 3_000
    assert summary.chunks["embedded"] + summary.chunks["reused"] == 3_000
    assert shop.ingest().idle and sound(shop)


def test_a_root_with_containers_moves_is_forgotten_and_is_built_again(shop: Workshop, tmp_path: Path) -> None:
    write(shop, map(record, range(5)), "sub/t.jsonl")
    shop.ingest()
    shop.ingest(rebuild=True, max_tokens=32)
    assert len(by_path(shop)) == 5
    index = Index(shop.index, disk=Disk())
    shop.docs.rename(tmp_path / "elsewhere")
    moved(index, str(shop.docs), str(tmp_path / "elsewhere"), warn=print)
    assert by_path(shop)["sub/t.jsonl#3"]["uri"] == f"{tmp_path}/elsewhere/sub/t.jsonl#3"
    before = shop.embedded
    assert shop.ingest().exit_code == 0 and shop.embedded == before
    forget(index, str(tmp_path / "elsewhere"), warn=print)
    assert shop.rows() == []


def test_the_records_of_a_damaged_shard_are_read_again(shop: Workshop) -> None:
    write(shop, map(record, range(5)))
    shop.ingest()
    for shard in (shop.index / "current/vectors").glob("*.parquet"):
        data = bytearray(shard.read_bytes())
        data[300:340] = bytes(40)
        shard.chmod(0o600)
        shard.write_bytes(data)
    found = verify(Index(shop.index, disk=Disk())).damaged_shards
    assert found
    state.note_damaged(shop.index / "state", found, Disk())
    shop.ingest()
    assert len(by_path(shop)) == 5 and sound(shop)


# ---- streams


def stream(shop: Workshop, monkeypatch: pytest.MonkeyPatch, records: Iterable[Any], *, whole: bool = False) -> Any:
    lines = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    return shop.ingest(stream=Stream("tickets", whole=whole))


def test_a_stream_adds_and_a_whole_one_replaces(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stream(shop, monkeypatch, map(record, range(4))).complete
    assert by_path(shop).keys() == {f"tickets#{n}" for n in range(4)}
    assert by_path(shop)["tickets#1"]["uri"] == "tickets#1"
    summary = stream(shop, monkeypatch, [record(3, status="closed"), record(4)])
    assert (summary.sources["new"], summary.chunks["embedded"], summary.sources["gone"]) == (1, 1, 0)
    assert by_path(shop).keys() == {f"tickets#{n}" for n in range(5)}
    assert stream(shop, monkeypatch, [record(3, status="closed"), record(4)]).idle
    summary = stream(shop, monkeypatch, [record(3, status="closed"), record(4)], whole=True)
    assert (summary.sources["gone"], by_path(shop).keys()) == (3, {"tickets#3", "tickets#4"})
    assert sound(shop)


def test_a_plain_run_leaves_streams_alone_and_folders_go_on_beside_them(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(shop, monkeypatch, map(record, range(3)))
    assert shop.ingest().idle
    shop.write("a.txt", words(8, 9))
    assert shop.ingest(shop.docs).sources["new"] == 1
    assert shop.ingest().idle and len(by_path(shop)) == 4
    forget(Index(shop.index, disk=Disk()), "tickets", warn=print)
    assert by_path(shop).keys() == {"a.txt"} and shop.ingest().idle


def test_a_whole_stream_that_lost_everything_is_kept_by_the_guard(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(shop, monkeypatch, map(record, range(4)))
    with pytest.raises(InputError, match="nothing came on stdin"):
        stream(shop, monkeypatch, [], whole=True)
    summary = stream(shop, monkeypatch, [record(9)], whole=True)
    assert (summary.exit_code, len(by_path(shop))) == (3, 5)


class _Killed(io.RawIOBase):
    """Some of a stream, and then the end of the process that reads it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data:
            os.kill(os.getpid(), signal.SIGKILL)
        count = min(len(buffer), len(self._data))
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count


def killed_half_way_through_stdin(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    half = json.dumps(record(0)).encode() + b"\n"
    pid = os.fork()
    if not pid:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(_Killed(half), 1)))
        with contextlib.suppress(BaseException):
            shop.ingest(stream=Stream("tickets"))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_first_run_killed_while_it_reads_a_stream_is_run_again(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_half_way_through_stdin(shop, monkeypatch)
    assert stream(shop, monkeypatch, map(record, range(2))).complete
    assert by_path(shop).keys() == {"tickets#0", "tickets#1"} and sound(shop)


def test_what_came_on_stdin_for_a_killed_run_goes_with_the_next_run(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream(shop, monkeypatch, map(record, range(2)))
    killed_half_way_through_stdin(shop, monkeypatch)
    assert list((shop.index / "staging").iterdir())
    assert shop.ingest().idle
    assert not list((shop.index / "staging").iterdir())


def test_a_rebuild_asks_for_the_streams_again(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    stream(shop, monkeypatch, map(record, range(4)))
    with pytest.raises(InputError, match="came as a stream"):
        shop.ingest(rebuild=True)


# ---- mails, mailboxes, portfolios


def mail(subject: str, text: str, *files: tuple[str, bytes]) -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["Message-ID"] = subject, "a@example.org", f"<{subject}@example.org>"
    made.set_content(text)
    for name, data in files:
        kind = "pdf" if name.endswith(".pdf") else "octet-stream"
        made.add_attachment(data, maintype="application", subtype=kind, filename=name)
    return made


def collided(shop: Workshop) -> dict[str, str]:
    """The text of each document, by its path."""
    return {path: row["text"] for path, row in by_path(shop).items()}


@pytest.mark.parametrize("order", ["together", "mail first", "file first"])
def test_a_file_that_has_the_path_of_an_attachment_leaves_both_their_documents(shop: Workshop, order: str) -> None:
    """Neither takes the other's place, whichever comes first; the attachment gets a number."""

    def put_mail() -> None:
        shop.write("x.eml", mail("Hello", "The mail.", ("a.txt", b"The attachment.")).as_bytes())

    def put_file() -> None:
        shop.write("x.eml#a.txt", "The file.")

    shop.write("other.txt", words(20))
    for put in {"together": [], "mail first": [put_mail], "file first": [put_file]}[order]:
        put()
        shop.ingest()
    put_mail()
    put_file()
    shop.ingest()
    texts = collided(shop)
    assert "The file." in texts["x.eml#a.txt"] and "The attachment." in texts["x.eml#a.txt (2)"]
    assert set(texts) == {"other.txt", "x.eml", "x.eml#a.txt", "x.eml#a.txt (2)"} and sound(shop)
    assert shop.ingest().idle
    shop.write("x.eml", mail("Hello", "The mail.", ("a.txt", b"Another attachment.")).as_bytes())
    shop.ingest(shop.docs / "x.eml")  # the walk does not come by the file
    texts = collided(shop)
    assert "The file." in texts["x.eml#a.txt"] and "Another" in texts["x.eml#a.txt (2)"] and sound(shop)
    (shop.docs / "x.eml#a.txt").unlink()
    summary = shop.ingest()
    assert summary.sources["gone"] == 1 and "x.eml#a.txt" not in by_path(shop) and sound(shop)


def test_a_file_that_has_the_path_of_a_record_leaves_both_their_documents(shop: Workshop) -> None:
    write(shop, map(record, range(3)))
    shop.ingest()
    shop.write("tickets.jsonl#1", "The file.")
    shop.ingest()
    texts = collided(shop)
    assert texts["tickets.jsonl#1"] == "The file." and texts["tickets.jsonl#1 (record)"] == record(1)["text"]
    assert set(texts) == {f"tickets.jsonl#{name}" for name in ("0", "1", "1 (record)", "2")} and sound(shop)
    assert shop.ingest().idle
    write(shop, [record(0, status="closed"), record(1), record(2)])
    summary = shop.ingest()
    assert (summary.sources["new"], summary.sources["gone"], summary.chunks["embedded"]) == (0, 0, 0) and sound(shop)
    assert set(collided(shop)) == set(texts)


def test_names_of_attachments_are_each_given_once() -> None:
    assert distinct(["a", "a", "a (2)", "a"]) == ["a", "a (2)", "a (2) (2)", "a (3)"]
    assert distinct(["a", "b"], ["a", "a (2)"]) == ["a (3)", "b"]
    assert distinct(["x/y", "x%2Fy"], ["x%2Fy"]) == ["x/y (2)", "x%2Fy"]


def offer(text: bytes = b"Offer 4711") -> bytes:
    return pdf(lines(text))


def test_attachments_of_a_mail_are_documents_of_their_own(shop: Workshop) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    inner = mail("Inner", "Inside.", ("deep.txt", b"Deep down")).as_bytes()
    made = mail(
        "Order", "See below.", ("offer.pdf", offer()), ("logo.png", png), ("offer.pdf", offer(b"Offer 4712")),
        ("a/b.txt", b"A note"), ("locked.pdf", b"%PDF-1.4 torn"), ("inner.eml", inner),
    )  # fmt: skip
    file = shop.write("mail.eml", made.as_bytes())
    summary = shop.ingest()
    rows = by_path(shop)
    assert rows.keys() == {
        "mail.eml", "mail.eml#offer.pdf", "mail.eml#offer.pdf (2)", "mail.eml#a%2Fb.txt", "mail.eml#inner.eml",
        "mail.eml#inner.eml#deep.txt",
    }  # fmt: skip
    assert rows["mail.eml#offer.pdf"]["text"] == "Offer 4711" and rows["mail.eml#offer.pdf"]["page_start"] == 1
    assert rows["mail.eml#offer.pdf"]["uri"] == f"{file}#offer.pdf"
    assert "Attachments: offer.pdf, logo.png" in rows["mail.eml"]["text"]
    assert (summary.exit_code, summary.failures) == (3, {"damaged": 1}) and "mail.eml#locked.pdf" in shop.documents()
    assert shop.ingest().idle and sound(shop)


def test_attachments_that_left_a_mail_are_gone_and_what_stays_costs_nothing(shop: Workshop) -> None:
    shop.write("mail.eml", mail("Order", "One.", ("a.pdf", offer()), ("b.txt", b"Beside")).as_bytes())
    shop.ingest()
    shop.write("mail.eml", mail("Order", "One.", ("a.pdf", offer()), ("c.txt", b"Another")).as_bytes())
    summary = shop.ingest()
    assert by_path(shop).keys() == {"mail.eml", "mail.eml#a.pdf", "mail.eml#c.txt"}
    assert (summary.sources["gone"], summary.sources["new"], summary.chunks["embedded"]) == (1, 1, 2)
    (shop.docs / "mail.eml").unlink()
    shop.write("a.txt", words(8))
    assert shop.ingest().sources["gone"] == 3 and sound(shop)


def test_each_mail_of_a_mailbox_is_a_document_with_its_attachments(shop: Workshop, tmp_path: Path) -> None:
    def fill(*mails: EmailMessage) -> None:
        (tmp_path / "box").unlink(missing_ok=True)
        box = mailbox.mbox(tmp_path / "box")
        for one in mails:
            box.add(one)
        box.close()
        for name in ("box.mbox", "Inbox"):
            shop.write(name, (tmp_path / "box").read_bytes())

    first = mail("First", "From here on\nit leaks.", ("offer.pdf", offer()))
    fill(first, mail("Second", "All is well."))
    shop.ingest()
    rows = by_path(shop)
    names = ("#First@example.org", "#First@example.org#offer.pdf", "#Second@example.org")
    assert rows.keys() == {f"{box}{name}" for box in ("box.mbox", "Inbox") for name in names}
    assert "\n\nFrom here on\nit leaks." in rows["Inbox#First@example.org"]["text"]
    assert rows["box.mbox#Second@example.org"]["title"] == "Second"
    fill(first, mail("Second", "All is well."), mail("Third", "New."))
    summary = shop.ingest()
    assert (summary.sources["new"], summary.chunks["embedded"], summary.sources["gone"]) == (2, 1, 0)
    fill(mail("Second", "All is well."), mail("Third", "New."))
    assert shop.ingest().sources["gone"] == 4 and len(by_path(shop)) == 4
    assert shop.ingest().idle and sound(shop)


def test_mails_with_one_message_id_are_all_there(shop: Workshop) -> None:
    def fill(*texts: str) -> None:
        shop.write("box.mbox", "".join(f"From a x\n{mail('One', text)}\n" for text in texts))

    fill("First.", "Second.")
    assert shop.ingest().exit_code == 0
    assert by_path(shop).keys() == {"box.mbox#One@example.org", "box.mbox#One@example.org-2"}
    fill("First.", "Second.", "First.")
    summary = shop.ingest()
    assert (summary.sources["new"], summary.sources["gone"], summary.chunks["embedded"]) == (1, 0, 0)
    assert "box.mbox#One@example.org-3" in by_path(shop) and shop.ingest().idle and sound(shop)


def with_mounts(index: Path, *folders: str) -> None:
    """As if these folders of the first root had been mount points."""
    manifest = index / "current" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["roots"][0]["mounts"] = folders
    manifest.write_text(json.dumps(data))


def test_containers_on_a_share_that_is_not_mounted_are_stale_until_it_is(shop: Workshop) -> None:
    shop.write("here.txt", words(20))
    write(shop, map(record, range(4)), "share/tickets.jsonl")
    shop.write("share/box.mbox", b"".join(b"From a x\n" + bytes(mail(f"M{n}", "Text.")) + b"\n" for n in range(3)))
    shop.write("share/all.pdf", portfolio(("a.pdf", offer()), ("b.txt", b"Three")))
    shop.ingest()
    before, documents = shop.rows(), shop.documents()
    with_mounts(shop.index, "share")
    (shop.docs / "share").rename(shop.docs.parent / "away")
    (shop.docs / "share").mkdir()
    for exit_code in (3, 0):
        summary = shop.ingest()
        assert (summary.exit_code, summary.sources["stale"], summary.sources["gone"]) == (exit_code, 3, 0)
        assert summary.sources["changed"] + summary.sources["unchanged"] == len(documents)
        stale = {path for path, row in shop.documents().items() if (row["status"], row["reason"]) == ("stale", "io")}
        assert stale == {"share/tickets.jsonl", "share/box.mbox", "share/all.pdf"} and shop.rows() == before
    (shop.docs / "share").rmdir()
    (shop.docs.parent / "away").rename(shop.docs / "share")
    embedded = shop.embedded
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["stale"], shop.embedded) == (0, 0, embedded)
    assert summary.sources["changed"] + summary.sources["unchanged"] == len(documents)
    assert {path: (row["status"], row["reason"]) for path, row in shop.documents().items()} == {
        path: (row["status"], row["reason"]) for path, row in documents.items()
    }
    assert shop.rows() == before and shop.ingest().idle and follow(shop.index) == shop.ids()


def test_the_containers_of_a_folder_that_lost_too_many_are_stale_and_news(shop: Workshop) -> None:
    shop.write("here.txt", words(20))
    for number in range(12):
        write(shop, [record(number)], f"old/{number}.jsonl")
    shop.ingest()
    before = shop.rows()
    (shop.docs / "old").rename(shop.docs.parent / "away")
    for exit_code in (3, 0):
        summary = shop.ingest()
        assert (summary.exit_code, summary.sources["stale"], shop.rows()) == (exit_code, 12, before)
    (shop.docs.parent / "away").rename(shop.docs / "old")
    summary = shop.ingest()
    assert (summary.exit_code, summary.sources["stale"], shop.rows()) == (0, 0, before)
    assert shop.ingest().idle and sound(shop)


def test_the_files_in_a_portfolio_are_documents_of_their_own(shop: Workshop) -> None:
    inner = portfolio(("deep.pdf", offer(b"Deep")))
    shop.write("all.pdf", portfolio(("a.pdf", offer()), ("b.txt", b"Three"), ("in.pdf", inner), ("x.pdf", b"no PDF")))
    summary = shop.ingest()
    texts = {path: row["text"] for path, row in by_path(shop).items()}
    assert texts == {"all.pdf#a.pdf": "Offer 4711", "all.pdf#b.txt": "Three", "all.pdf#in.pdf#deep.pdf": "Deep"}
    statuses = {path: (row["status"], row["reason"]) for path, row in shop.documents().items()}
    assert statuses["all.pdf"] == statuses["all.pdf#in.pdf"] == ("skipped", "portfolio")
    assert (statuses["all.pdf#x.pdf"], summary.exit_code) == (("failed", "damaged"), 3)
    assert shop.ingest().idle and sound(shop)


def test_a_portfolio_that_is_read_again_is_no_news(shop: Workshop) -> None:
    shop.write("all.pdf", portfolio(("a.pdf", offer()), ("b.txt", b"Three")))
    assert shop.ingest().exit_code == 0
    assert shop.ingest(reread=True).exit_code == 0
    shop.write("all.pdf", portfolio(("a.pdf", offer()), ("b.txt", b"Four")))
    summary = shop.ingest()
    assert (summary.exit_code, summary.news, summary.skipped) == (0, [], {"portfolio": {".pdf": 1}})
    assert collided(shop) == {"all.pdf#a.pdf": "Offer 4711", "all.pdf#b.txt": "Four"}
    shop.write("all.pdf", b"")
    assert shop.ingest().exit_code == 3, "its text is lost, which is news"


def test_nights_are_the_same_however_little_of_the_tables_is_looked_at_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large index is merged, compared and written some rows at a time: here two or three."""

    def nights(shop: Workshop) -> list[object]:
        told: list[object] = []
        for name in ("b.txt", "sub/c.txt", "a-file.txt"):
            shop.write(name, words(80, len(name)))
        changes: list[dict[int, dict[str, Any]]] = [
            {},
            {3: {"text": words(9, 77)}, 8: {"status": "closed"}},
            {5: {"text": " "}, 30: {}},
            {5: {"text": words(150, 5)}},
        ]
        for night, changed in enumerate(changes):
            numbers = [n for n in range(24) if n not in ((), (), (1, 2), (1, 9))[night]]
            write(shop, [record(n, **changed.get(n, {})) for n in [*numbers, *(n for n in changed if n > 24)]])
            if night == 2:
                (shop.docs / "sub/c.txt").unlink()
            summary = shop.ingest(checkpoint_every_s=0.0, **({"reread": True} if night == 3 else {}))
            documents = shop.documents()
            places = ("shard", "mtime_ns", "ctime_ns", "inode", "uri", "tried", "first_row")
            rows = [[row[name] for name in row if name not in places] for row in documents.values()]
            seen = [(row["path"], row["text"], row["chunk_id"], row["changed_in"]) for row in shop.rows()]
            changes_of = sorted(map(repr, pq.read_table(max(shop.index.glob("changes/*.parquet"))).to_pylist()))
            assert sound(shop)
            told += [summary.sources, summary.chunks["total"], list(documents), rows, seen, changes_of]
        assert shop.ingest().idle
        return told

    (tmp_path / "large").mkdir()
    large = nights(Workshop(tmp_path / "large"))
    for place in (
        "index.documents.PART_ROWS",
        "index.tables.walk_order.WINDOW_ROWS",
        "index.next_table.GROUP_DOCUMENTS",
    ):
        monkeypatch.setattr(f"embedcli.{place}", 3)
    for place in ("index.tables.spilled.IN_MEMORY_ROWS", "index.outcomes.IN_MEMORY_ROWS"):
        monkeypatch.setattr(f"embedcli.{place}", 2)
    monkeypatch.setattr("embedcli.index.generations.AT_ONCE_ROWS", 2)
    shutil.move(tmp_path / "large", tmp_path / "before")  # the same paths, and so the same ids
    (tmp_path / "large").mkdir()
    assert nights(Workshop(tmp_path / "large")) == large
