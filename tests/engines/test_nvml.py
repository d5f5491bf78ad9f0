"""Which cards CUDA would show, and whether torch can run on them. On a machine without a driver it is a fake."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from embedcli.engines.nvml import Card, check_driver, has_nvidia_card, read_cards, torch_cuda, visible_cards
from embedcli.errors import EngineError
from tests.fake_cards import needs_compiler

ONE = Card(0, "GPU-aaaa-1", "NVIDIA H100", (9, 0), 80 << 30, 79 << 30, "580.65.06", (13, 0))
TWO = replace(ONE, index=1, uuid="GPU-bbbb-2")
CARDS = [ONE, TWO]


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (None, [ONE, TWO]),
        ("0,1", [ONE, TWO]),
        ("1, 0", [TWO, ONE]),
        ("GPU-bbbb", [TWO]),
        ("1,7,0", [TWO]),
        ("", []),
        ("-1", []),
    ],
)
def test_cards_are_seen_as_cuda_sees_them(setting: str | None, seen: list[Card]) -> None:
    assert visible_cards(CARDS, setting) == seen


def test_a_driver_older_than_torchs_cuda_is_an_error_with_both_versions() -> None:
    old = replace(ONE, driver="535.104", cuda=(12, 2))
    with pytest.raises(EngineError, match=r"driver 535\.104 runs CUDA 12\.2, torch needs `13\.0`") as caught:
        check_driver(old, (13, 0))
    assert "newer driver" in caught.value.hint and caught.value.exit_code == 13


def test_a_driver_of_the_same_major_version_is_accepted() -> None:
    check_driver(replace(ONE, cuda=(13, 0)), (13, 2))
    check_driver(ONE, (12, 9))


def test_a_torch_without_cuda_is_an_error() -> None:
    with pytest.raises(EngineError, match="without CUDA"):
        check_driver(ONE, None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("cuda: Optional[str] = '13.0'\n", (13, 0)),
        ("debug = False\ncuda = '12.9'\n", (12, 9)),
        ('cuda = "12.9"\n', (12, 9)),
        ("cuda: Optional[str] = None\n", None),
    ],
)
def test_torchs_cuda_is_read_without_importing_it(tmp_path: Path, text: str, version: tuple[int, int] | None) -> None:
    (tmp_path / "version.py").write_text(text)
    assert torch_cuda(tmp_path / "version.py") == version
    assert torch_cuda(tmp_path / "absent.py") is None


def ask(environment: dict[str, str], code: str) -> str:
    """What a process prints that has the fake driver: a driver is loaded once a process."""
    code = f"from embedcli.engines.nvml import has_nvidia_card, read_cards\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@needs_compiler
def test_a_card_is_described_as_the_driver_describes_it(machine: dict[str, str]) -> None:
    settings = {"FAKE_CARDS": "2", "FAKE_FREE": "7.5", "FAKE_CUDA": "12080"}
    found = ask(machine | settings, "print(has_nvidia_card(), read_cards([1]))")
    card = Card(1, "GPU-1", "NVIDIA GeForce RTX 4090", (8, 9), 24 << 30, 15 << 29, "580.65", (12, 8))
    assert found == f"True {[card]}"


@needs_compiler
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FAKE_INIT_STATUS": "9"}, "the NVIDIA driver does not answer: `Driver Not Loaded`"),
        ({"FAKE_INIT_STATUS": "77"}, "the NVIDIA driver does not answer: `an error that pynvml has no name for`"),
        ({"FAKE_MEMORY_STATUS": "15"}, "the NVIDIA driver does not answer: `GPU is lost`"),
        ({"FAKE_CARDS": "0"}, "the NVIDIA driver shows no card"),
        ({"LD_LIBRARY_PATH": "/nowhere"}, "there is no NVIDIA driver here"),
    ],
)
@pytest.mark.skipif(has_nvidia_card(), reason="there is a driver")
def test_a_driver_that_fails_is_an_error_with_its_reason_and_what_to_do(
    machine: dict[str, str], settings: dict[str, str], message: str
) -> None:
    code = "try:\n    read_cards()\nexcept Exception as error:\n    print(repr(error), error, error.hint, sep='|')"
    kind, said, hint = ask(machine | settings, code).split("|")
    assert kind.startswith("EngineError(") and said == message and "`--device cpu`" in hint
    assert ask(machine | settings, "print(has_nvidia_card())") == str("FAKE_MEMORY_STATUS" in settings)


@pytest.mark.skipif(has_nvidia_card(), reason="there is a driver")
def test_a_machine_without_a_driver_is_an_error_with_the_hint_to_use_the_cpu() -> None:
    with pytest.raises(EngineError, match="NVIDIA driver") as caught:
        read_cards([0])
    assert "--device cpu" in caught.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(not has_nvidia_card(), reason="no NVIDIA card")
def test_the_driver_describes_its_cards() -> None:
    for card in read_cards():
        assert card.uuid.startswith("GPU-") and card.capability >= (7, 0)
        assert 0 < card.free_bytes <= card.total_bytes
        assert card.cuda >= (11, 0) and card.driver
    with pytest.raises(EngineError, match="none is `99`"):
        read_cards([99])


@pytest.mark.gpu
@pytest.mark.skipif(not has_nvidia_card(), reason="no NVIDIA card")
def test_hidden_cards_have_another_error_than_absent_ones() -> None:
    with pytest.raises(EngineError, match="CUDA_VISIBLE_DEVICES hides"):
        read_cards([0], environment={"CUDA_VISIBLE_DEVICES": ""})
