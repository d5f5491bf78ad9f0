"""The hints about models, carried out: folders that lack something, and a hub that refuses.

In: tiny models (tests/tiny_models.py), a stand-in for the hub (tests/hub.py). The program is run in a process of its
own where the hub's library is asked, for it reads its environment once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.carried_out.table import CARRIED, Command, Row, carries_out, carry_out, cases, typed, words_to_type
from tests.hint_states import HERE, State, nothing, shell
from tests.hub import COMMIT, Hub, serving
from tests.published import edit_manifest
from tests.tiny_models import make_bert, make_qwen
from tests.workshop import Workshop

NAME = "owner/tiny-model"
OTHER = "choose another model: `--model minilm`, a hub id or a folder saved by sentence-transformers"
ELSEWHERE = "choose `--model minilm` or `--model /path/to/folder`"
INGEST = "embedcli ingest {docs} --index {index} --dim 16 --model"
AGAIN = "embedcli ingest --index {index}"


def with_model(*lines: str) -> State:
    """A model in `model`, a sound one in `whole`, and what happens to the first."""

    def state(shop: Workshop) -> None:
        nothing(shop)
        parent = shop.index.parent
        make_bert(parent / "whole")
        make_bert(parent / "model")
        make_bert(parent / "changed", seed=1)
        for line in lines:
            shell(line, shop)

    return state


def of_that_model(*lines: str) -> State:
    """An index with the model, and what happened then."""

    def state(shop: Workshop) -> None:
        with_model()(shop)
        shell("{program} ingest {docs} --index {index} --dim 16 --model {parent}/model --quiet", shop)
        shop.write("more.txt", "Another text.")
        for line in lines:
            shell(line, shop)

    return state


def of_other_weights(shop: Workshop) -> None:
    """The folder that the manifest names is gone, and what is there under that name has other weights."""
    nothing(shop)
    shop.ingest()
    edit_manifest(shop, lambda data: data["query"].update(folder="/gone", weights_sha256="0"))


def with_a_prompt(shop: Workshop) -> None:
    """A model that puts 23 tokens before each document."""
    nothing(shop)
    make_qwen(shop.index.parent / "model", document_prompt="the index of the model and the text of the page: ")


ROWS = [
    Row(
        "use `--max-tokens 32` or more",
        with_a_prompt,
        f"{INGEST} {{parent}}/model --max-tokens 16",
        [[f"{INGEST} {{parent}}/model --max-tokens 32"]],
    ),
    Row(
        "put that one back, or build the index again with `embedcli ingest --rebuild`",
        of_other_weights,
        AGAIN,
        [["embedcli ingest --rebuild --index {index}"]],
        retold=True,
    ),
    *(
        Row(
            OTHER,
            with_model(line),
            f"{INGEST} {{parent}}/model",
            [[f"{INGEST} minilm"], [f"{INGEST} {{parent}}/whole"]],
        )
        for line in (
            "rm {parent}/model/config.json",
            "rm {parent}/model/modules.json",
            "echo '{{' > {parent}/model/config.json",
            "mv {parent}/model/model.safetensors {parent}/model/pytorch_model.bin",
        )
    ),
    *(
        Row(
            "fetch it again with `embedcli pull` and its hub id, or save the folder anew",
            with_model(line),
            f"{INGEST} {{parent}}/model",
            [["rm -r {parent}/model", "cp -r {parent}/whole {parent}/model", f"{INGEST} {{parent}}/model"]],
        )
        for line in ("rm {parent}/model/model.safetensors", "truncate -s 20000 {parent}/model/model.safetensors")
    ),
    Row(
        "name the model that it was made from with `--model`",
        with_model('sed -i \'s/^{{/{{"quantization_config": {{"bits": 4}},/\' {parent}/model/config.json'),
        f"{INGEST} {{parent}}/model",
        [[f"{INGEST} {{parent}}/whole"]],
    ),
    Row(
        "name another `--model`, or the folder of a complete one",
        with_model("echo '{{}}' > {parent}/model/tokenizer.json"),
        f"{INGEST} {{parent}}/model",
        [[f"{INGEST} minilm"], [f"{INGEST} {{parent}}/whole"]],
    ),
    Row(
        "name the folder that holds its config.json",
        with_model(),
        f"{INGEST} {{parent}}/model/config.json",
        [[f"{INGEST} {{parent}}/model"]],
    ),
    Row(
        f"if it was moved, `--model` and where it is now; else name a hub id, or {ELSEWHERE}",
        of_that_model("mv {parent}/model {parent}/elsewhere"),
        AGAIN,
        [[f"{AGAIN} --model {{parent}}/elsewhere"], [f"{AGAIN} --model minilm --rebuild"]],
    ),
    Row(
        "put that one back, or build the index again: `embedcli ingest --rebuild --index {index}`",
        of_that_model("mv {parent}/model {parent}/kept", "cp -r {parent}/changed {parent}/model"),
        AGAIN,
        [
            ["rm -r {parent}/model", "mv {parent}/kept {parent}/model", AGAIN],
            ["embedcli ingest --rebuild --index {index}"],
        ],
    ),
    Row(
        "put the old model back, or build the index again with `--rebuild`",
        of_that_model("mv {parent}/model {parent}/kept", "cp -r {parent}/changed {parent}/model"),
        "embedcli search word {index}",
        [
            ["rm -r {parent}/model", "mv {parent}/kept {parent}/model", "embedcli search word {index}"],
            [f"{AGAIN} --rebuild", "embedcli search word {index}"],
        ],
    ),
]


@pytest.mark.parametrize(**cases(ROWS))
def test_a_hint_is_given_in_its_state_and_helps(shop: Workshop, command: Command, row: Row, way: Sequence[str]) -> None:
    carry_out(row, way, shop, command)


# ---- the hub


class Asking:
    """The program, in a folder with documents, and the hub that it asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = make_bert(folder / "model")
        (folder / "docs").mkdir()
        (folder / "docs/a.txt").write_text("A text about the night.")

    def run(self, *arguments: str, endpoint: str = "http://127.0.0.1:9", **settings: str) -> Any:
        kept = {
            key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy") and key[:3] != "HF_"
        }
        environment = kept | {
            "HF_HOME": str(self.folder / "home"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_ETAG_TIMEOUT": "5",
            "EMBEDCLI_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(HERE.parent), **settings,
        }  # fmt: skip
        command = [sys.executable, str(HERE / "quick_embedcli.py"), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)

    def ingest(self, model: str, **settings: str) -> Any:
        return self.run("ingest", "docs", "--index", "index", "--dim", "16", "--model", model, **settings)


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


def told(ran: Any, hint: str) -> None:
    assert ran.returncode in (13, 14) and f"hint: {hint}\n" in ran.stderr, ran.stderr


OFFLINE = f"`embedcli pull {NAME}` where there is a network (the cache may be copied), or {ELSEWHERE}"
CARRIED.add(f"`embedcli pull {NAME}@{COMMIT}` where there is a network (the cache may be copied)")


@carries_out(OFFLINE)
def test_a_model_pulled_elsewhere_is_copied_to_a_machine_without_a_network(asking: Asking) -> None:
    told(asking.ingest(NAME), OFFLINE)
    with serving(Hub(asking.model, NAME)) as hub:
        assert asking.run("pull", NAME, endpoint=hub.endpoint, HF_HOME=str(asking.folder / "other")).returncode == 0
    shutil.copytree(asking.folder / "other/hub", asking.folder / "home/hub", symlinks=True, dirs_exist_ok=True)
    ran = asking.ingest(NAME)
    assert ran.returncode == 0, ran.stderr
    shutil.rmtree(asking.folder / "home")
    (asking.folder / "docs/b.txt").write_text("Another text.")
    told(asking.run("ingest", "--index", "index"), OFFLINE.partition(", or")[0].replace(NAME, f"{NAME}@{COMMIT}"))
    with serving(Hub(asking.model, NAME)) as hub:
        assert asking.run("pull", f"{NAME}@{COMMIT}", endpoint=hub.endpoint).returncode == 0
    assert asking.run("ingest", "--index", "index").returncode == 0


def test_another_model_than_the_one_that_cannot_be_had_works(asking: Asking) -> None:
    told(asking.ingest(NAME), OFFLINE)
    assert asking.ingest("minilm").returncode == 0
    assert asking.run("ingest", "docs", "--index", "other", "--model", str(asking.model)).returncode == 0


SPELLING = f"check the spelling and, for a private model, `HF_TOKEN`, or {ELSEWHERE}"


@carries_out(SPELLING)
def test_a_model_whose_name_was_misspelt_is_found(asking: Asking) -> None:
    with serving(Hub(asking.model, NAME, model_status=(404, "RepoNotFound"))) as hub:
        told(asking.run("pull", "owner/tiny-modle", endpoint=hub.endpoint), SPELLING)
    with serving(Hub(asking.model, NAME)) as hub:
        assert asking.run("pull", NAME, endpoint=hub.endpoint).returncode == 0


GATED = f"accept its terms on its page, set `HF_TOKEN`, then `embedcli pull {NAME}`"


@carries_out(GATED)
def test_a_model_whose_terms_were_accepted_is_pulled(asking: Asking) -> None:
    with serving(Hub(asking.model, NAME, model_status=(403, "GatedRepo"))) as hub:
        told(asking.run("pull", NAME, endpoint=hub.endpoint), GATED)
    with serving(Hub(asking.model, NAME)) as hub:
        assert asking.run("pull", NAME, endpoint=hub.endpoint, HF_TOKEN="hf_accepted").returncode == 0


@carries_out("set `HF_HOME` to a folder that can be written")
def test_a_cache_elsewhere_can_be_written(asking: Asking) -> None:
    (asking.folder / "home").write_text("a file, not a folder")
    with serving(Hub(asking.model, NAME)) as hub:
        told(asking.run("pull", NAME, endpoint=hub.endpoint), "set `HF_HOME` to a folder that can be written")
        ran = asking.run("pull", NAME, endpoint=hub.endpoint, HF_HOME=str(asking.folder / "elsewhere"))
    assert ran.returncode == 0, ran.stderr


@carries_out("unset `HF_ENDPOINT`")
def test_an_address_that_is_none_is_unset(asking: Asking) -> None:
    told(asking.run("pull", NAME, endpoint="http://[no-url"), "unset `HF_ENDPOINT`")
    with serving(Hub(asking.model, NAME)) as hub:
        assert asking.run("pull", NAME, endpoint=hub.endpoint).returncode == 0


@carries_out("free some space or set `HF_HOME` to a larger disk")
def test_a_larger_disk_takes_the_model(asking: Asking) -> None:
    """A disk of its own, of 200 kB, where this user may mount one."""
    small = asking.folder / "small"
    small.mkdir()
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=64k small "{small}" && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    with serving(Hub(asking.model, NAME)) as hub:
        settings = {**os.environ, "HF_HOME": str(small), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
        line = [*mount, sys.executable, str(HERE / "quick_embedcli.py"), "pull", NAME]
        ran = subprocess.run(line, env=settings, capture_output=True, text=True, timeout=120)
        told(ran, "free some space or set `HF_HOME` to a larger disk")
        assert asking.run("pull", NAME, endpoint=hub.endpoint).returncode == 0


@pytest.mark.parametrize("row", ROWS, ids=[ascii(row.hint[:60]) for row in ROWS])
def test_the_ways_type_what_the_hint_names(row: Row) -> None:
    for word in words_to_type(row.hint):
        if word not in ("/path/to/folder", "pull"):
            assert word in typed(row) or "pull" in row.hint, word
