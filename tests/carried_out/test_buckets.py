"""The hints about buckets, carried out with a server of S3 (moto) and a proxy before it that refuses."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedcli.config import index_folder
from embedcli.index.mirror.mirror import Mirror
from embedcli.vault.lease import Lease
from embedcli.vault.opened import open_vault
from tests.carried_out.table import CARRIED, Command, carries_out, code_of
from tests.hint_states import nothing
from tests.published import silent
from tests.s3 import S3, Proxy, nobody_listens, proxied
from tests.workshop import Workshop, words

AGAIN = "run the same command again: finished documents are kept"
RIGHTS = "an index needs s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject; to read it, the first two"
SERVER = f"check the network and AWS_ENDPOINT_URL, then {AGAIN}"


@pytest.fixture
def place(s3: S3, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an index that does not exist yet, and documents for it."""
    monkeypatch.setenv("EMBEDCLI_CACHE", str(shop.index.parent / "cache"))
    nothing(shop)
    return f"{s3.bucket()}/idx"


@pytest.fixture
def command(command: Command) -> Command:
    """As in a process of its own: the store of a URL is opened anew."""

    def run(*arguments: object) -> Any:
        open_vault.cache_clear()
        return command(*arguments)

    return run


@pytest.fixture
def ingest(shop: Workshop, command: Command) -> Callable[..., Any]:
    return lambda url, *flags: command("ingest", shop.docs, "--index", url, "--dim", 16, *flags)


def refused(ran: Any, hint: str, code: int = 14) -> None:
    assert (code_of(ran), getattr(ran.exception, "hint", ran.output)) == (code, hint)


def works(ran: Any) -> None:
    assert ran.exit_code == 0, ran.exception


ANSWERS = [
    (400, "ExpiredToken", "get new ones, such as by `aws sso login`, export them, and run the same command again"),
    (403, "InvalidAccessKeyId",
     "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and the clock of this machine"),
    (403, "AccessDenied", RIGHTS),
    (301, "PermanentRedirect", "export AWS_REGION with the region of the bucket"),
    (503, "SlowDown", AGAIN),
    (500, "InternalError", AGAIN),
    (418, "Teapot", "check the bucket with its provider's own tools"),
]  # fmt: skip
CARRIED.update(hint for _, _, hint in ANSWERS)


@pytest.mark.parametrize(("status", "name", "hint"), ANSWERS)
def test_what_a_server_refused_it_takes_when_that_was_mended(
    s3: S3, place: str, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, status: int, name: str, hint: str
) -> None:
    body = f"<Error><Code>{name}</Code></Error>".encode()
    with proxied(Proxy(s3, before=lambda _: (status, body))) as server, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", server.endpoint)
        refused(ingest(place), hint)
    works(ingest(place))


@carries_out(SERVER, "check its name and AWS_ENDPOINT_URL, or create it")
def test_a_bucket_is_found_at_another_address_and_by_its_right_name(
    place: str, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, nobody_listens() as endpoint:
        patched.setenv("AWS_ENDPOINT_URL", endpoint)
        refused(ingest(place), SERVER)
    refused(ingest("s3://no-such-bucket/idx"), "check its name and AWS_ENDPOINT_URL, or create it")
    works(ingest(place))


KEYS = "export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS for `gs://`"


@carries_out(KEYS)
def test_credentials_that_are_exported_are_used(
    place: str, ingest: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.delenv("AWS_ACCESS_KEY_ID")
        patched.delenv("AWS_SECRET_ACCESS_KEY")
        patched.setenv("AWS_EC2_METADATA_DISABLED", "true")
        refused(ingest(place), KEYS)
    works(ingest(place))


@carries_out(
    "write `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`",
    "name one: `s3://BUCKET/FOLDER`",
    "use a shorter prefix",
)
def test_urls_that_are_mended_work(place: str, ingest: Callable[..., Any], shop: Workshop, command: Command) -> None:
    bucket = place.removesuffix("/idx")
    refused(ingest("http://x/y"), "write `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`", 2)
    refused(ingest(f"{place}/{'x' * 250}"), "use a shorter prefix", 2)
    works(ingest(place))
    refused(command("ingest", "s3://", "--index", shop.index), "name one: `s3://BUCKET/FOLDER`", 15)
    open_vault(bucket).put_new("docs/a.txt", words(60).encode())
    works(command("ingest", f"{bucket}/docs", "--index", shop.index, "--dim", 16))


@carries_out("name its folder: `embedcli ingest s3://b/docs --include /a.txt`")
def test_one_object_is_indexed_by_its_folder(place: str, shop: Workshop, command: Command) -> None:
    bucket = place.removesuffix("/idx")
    for name in ("a", "b"):
        open_vault(bucket).put_new(f"docs/{name}.txt", words(60, ord(name)).encode())
    ran = command("ingest", f"{bucket}/docs/a.txt", "--index", shop.index, "--dim", 16)
    hint = f"name its folder: `embedcli ingest {bucket}/docs --include /a.txt`"
    refused(ran, hint, 15)
    works(command(*shlex.split(hint.split("`")[1])[1:], "--index", shop.index, "--dim", 16))
    assert shop.documents().keys() == {"a.txt"}


LISTS = "name its folder as a SOURCE, with `--include` for what you want of it"


@carries_out(LISTS)
def test_objects_are_indexed_by_their_folder_where_a_list_named_them(
    place: str, shop: Workshop, command: Command
) -> None:
    bucket = place.removesuffix("/idx")
    open_vault(bucket).put_new("docs/a.txt", words(60).encode())
    (shop.index.parent / "list").write_text(f"{bucket}/docs/a.txt\n")
    ran = command("ingest", "--files-from", shop.index.parent / "list", "--index", shop.index, "--dim", 16)
    assert getattr(ran.exception, "hint", ran.output) == LISTS
    works(command("ingest", f"{bucket}/docs", "--include", "/a.txt", "--index", shop.index, "--dim", 16))


DEAF = "put the index into a store that has them, such as S3, GCS, R2 or MinIO of 2024, or into a folder"


@carries_out(DEAF)
def test_a_store_with_conditional_writes_and_a_folder_take_the_index(
    s3: S3, place: str, ingest: Callable[..., Any], shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(Proxy(s3, strip=frozenset({"if-match", "if-none-match"}))) as deaf, monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", deaf.endpoint)
        refused(ingest(place), DEAF)
        works(ingest(str(shop.index)))
    works(ingest(place))


@carries_out("name an empty or a new prefix with `--index`", "upgrade with `pip install --upgrade embedcli`")
def test_a_new_prefix_is_taken(place: str, ingest: Callable[..., Any]) -> None:
    open_vault(place).put_new("reports/2026.pdf", b"%PDF")
    refused(ingest(place), "name an empty or a new prefix with `--index`", 10)
    open_vault(f"{place}-newer").put_new("current.json", json.dumps({"format": 99}).encode())
    refused(ingest(f"{place}-newer"), "upgrade with `pip install --upgrade embedcli`", 10)
    works(ingest(f"{place}-2"))


@carries_out("stop the run on `somewhere` with `kill 1`: finished documents are kept")
def test_a_run_that_was_stopped_leaves_the_lease(
    place: str, ingest: Callable[..., Any], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`unlock` finds the run and refuses; once that has ended, both commands work."""
    works(ingest(place))
    defaults = Mirror.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "lease_s", 40.0)  # `unlock` waits a thirteenth of it for a sign of life
    with Lease(open_vault(place), "the other", warn=silent, lease_s=1.0):
        ran = command("unlock", place)
        hint = str(getattr(ran.exception, "hint", ran.output))
        assert hint.startswith("stop the run on `") and hint.endswith("`: finished documents are kept")
    works(command("unlock", place))
    works(command("ingest", "--index", place))


def test_a_manifest_that_a_bucket_has_lost_is_rolled_back_from(
    place: str, ingest: Callable[..., Any], shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is that of a folder; here on a machine that has fetched nothing of the index."""
    works(ingest(place))
    shop.write("more.txt", words(60, 5))
    works(command("ingest", "--index", place))
    vault = open_vault(place)
    lost = sorted(item.key for item in vault.list("generations") if item.key.endswith("/manifest.json"))[1:]
    assert len(lost) == 1, lost
    monkeypatch.setenv("EMBEDCLI_CACHE", str(shop.index.parent / "another machine"))
    vault.remove(lost)
    hint = f"`embedcli rollback --to 1 --index {place}` makes generation 1 current"
    for line in (("status", place), ("ingest", "--index", place)):
        refused(command(*line), hint)
    works(command(*hint.split("`")[1].split()[1:]))
    works(command("verify", place))
    works(command("ingest", "--index", place))
    assert json.loads(command("status", place, "--json").stdout)["sources"]["indexed"] == 4


@carries_out("run the same command again: the documents of that shard are read again")
def test_a_shard_that_is_lost_before_it_is_published_is_read_again(
    place: str, ingest: Callable[..., Any], shop: Workshop, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(ingest(place))
    shop.write("more.txt", words(60, 5))
    vault = open_vault(place)

    def lose(_: Mirror, name: str) -> None:
        if name == "before swap":
            vault.remove([item.key for room in ("vectors", "keys") for item in vault.list(room)])

    monkeypatch.setenv("EMBEDCLI_CACHE", str(shop.index.parent / "another machine"))
    with monkeypatch.context() as patched:
        patched.setattr(Mirror, "step", lose)
        ran = command("ingest", "--index", place)
    refused(ran, "run the same command again: the documents of that shard are read again")
    works(command("ingest", "--index", place))
    assert command("status", place, "--json").exit_code == 0


@carries_out("name one with `EMBEDCLI_CACHE`")
def test_a_cache_folder_is_named_where_there_is_no_home(
    place: str, ingest: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "home", no_home)
        patched.delenv("EMBEDCLI_CACHE")
        refused(ingest(place), "name one with `EMBEDCLI_CACHE`", 2)
        patched.setenv("EMBEDCLI_CACHE", str(tmp_path / "named"))
        works(ingest(place))
    assert index_folder(place, {"EMBEDCLI_CACHE": str(tmp_path / "named")}).exists()
