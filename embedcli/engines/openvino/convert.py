"""The child process that converts a model for OpenVINO with torch, and accepts the result only where it agrees.

In: an order on stdin: the model's folder, the folder to write into. Out: `model.xml`, `model.bin` and a record; else an
exit code that says whether the model is to blame, and the reason as the last line of stderr.
Not here: where conversions are kept (conversion.py). This is the one door of transformers' exporter.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from embedcli.engines.contract import Engine
from embedcli.engines.openvino import runtime
from embedcli.engines.openvino.conversion import LEAST_AGREEMENT, REFUSED, Conversion, write_record
from embedcli.engines.openvino.engine import open_converted
from embedcli.engines.probe import compare_probe, probe_set
from embedcli.errors import EngineError
from embedcli.models.files import read_json
from embedcli.models.folder import Model, read_model
from embedcli.models.tokenizer import load_tokenizer, skipped_tokens
from embedcli.processes import die_with

NOT_THE_MODEL = 4
"""The exit code for want of disk or memory."""

PROBE_TOKENS = 512
MIXED_TOKENS = 160
"""The longest chunk of the mixed batch, unless the model's window is longer."""

WINDOWS = ("sliding_window", "local_attention")
"""The settings of a config.json that say how far a token sees."""


OUT_OF_MEMORY = re.compile("alloc|out of memory", re.IGNORECASE)
"""What torch and OpenVINO say of memory, in errors of a general type."""


class Hindered(Exception):
    """What ended the conversion lies in this machine at this time, not in the model."""


def main() -> None:
    order: dict[str, Any] = json.load(sys.stdin)
    die_with(order["parent"])
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # openvino then does without
    warnings.simplefilter("ignore")
    logging.disable()
    try:
        convert(Path(order["folder"]), Path(order["into"]))
    except (OSError, MemoryError, Hindered) as error:
        _give_up(error)
    except (RuntimeError, EngineError) as error:
        if OUT_OF_MEMORY.search(str(error)) is None:
            raise
        _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    print(str(error).strip().partition("\n")[0] or type(error).__name__, file=sys.stderr)
    sys.exit(NOT_THE_MODEL)


def convert(source: Path, into: Path, export: Callable[[Any, Path], None] | None = None) -> None:
    """Convert the model in `source`. Ends the process where the vectors do not agree in float32."""
    import torch

    from embedcli.engines.torch_engine import TorchEngine, load_network

    cpu = torch.device("cpu")
    try:
        model = read_model(source, name=str(source), commit=None, cache=None)
        network = load_network(model, cpu)
    except EngineError as error:  # its files cannot be read now, or torch cannot run it either
        raise Hindered(str(error)) from error
    (export or export_network)(network, into / "model.xml")
    reference = TorchEngine(network, model=model, dim=model.width, device=cpu, skipped_tokens=skipped_tokens(model))
    vocabulary, pad_id = reference.vocabulary or 0, int(network.config.pad_token_id or 0)
    agreement = compare(model, Conversion(into, vocabulary, pad_id, ()), reference)
    agreed = [name for name, cosine in agreement.items() if cosine >= LEAST_AGREEMENT[name]]
    shutil.rmtree(into / "compiled", ignore_errors=True)  # it is found by the name of this folder, which will change
    if runtime.FLOAT32 not in agreed:
        print(f"its vectors differ from torch's, cosine {agreement[runtime.FLOAT32]:.4f}", file=sys.stderr)
        sys.exit(REFUSED)
    write_record(
        into,
        {"vocabulary": vocabulary, "pad_id": pad_id, "agreed": agreed, "agreement": agreement, "from": str(source)},
    )


def export_network(network: Any, xml: Path) -> None:
    """Write the network as a graph with one output, the states; its weights stay float32."""
    import openvino
    import torch
    from transformers.exporters import exporter_openvino

    ids = torch.arange(5, 37).reshape(2, 16) % network.get_input_embeddings().num_embeddings
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    exporter: Any = exporter_openvino  # untyped
    settings = exporter.OpenVINOConfig(dynamic=True, stateful=False)
    sample = {"input_ids": ids, "attention_mask": mask}
    graph = exporter.OpenVINOExporter().export(network, sample, config=settings).program
    states = openvino.Model([graph.output("last_hidden_state")], graph.get_parameters(), "embedcli")
    try:
        openvino.save_model(states, str(xml), compress_to_fp16=False)
    except RuntimeError as error:  # such as `basic_ios::clear: iostream error`
        raise Hindered(f"the conversion cannot be written, is the disk full? `{xml.parent}`") from error


def compare(model: Model, conversion: Conversion, reference: Engine) -> dict[str, float]:
    """For each precision of this CPU the smallest cosine to the reference's vectors, of chunks alone and of a batch
    whose padding is longer than the model's window."""
    encode = load_tokenizer(model.folder, prompt=model.prompt).row_of
    alone, mixed = probe_set(encode, min(PROBE_TOKENS, model.max_tokens)), _mixed(model, encode)
    wanted = [_vectors(reference, alone), _vectors(reference, mixed)]
    found: dict[str, float] = {}
    for precision in runtime.precisions():
        engine = open_converted(model, conversion, dim=model.width, precision=precision)
        together = engine.submit(mixed).result()
        cosines = [compare_probe(_vectors(engine, alone), wanted[0]), compare_probe(together, wanted[1])]
        found[precision] = float(np.min(np.nan_to_num(cosines, nan=-1.0)))
        engine.close()
    return found


def _vectors(engine: Engine, rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([engine.submit([row]).result() for row in rows])


def _mixed(model: Model, encode: Any) -> list[np.ndarray]:
    """Chunks of 1, 5 and 17 tokens, and one that is longer than the model's window by more than that."""
    config = read_json(model.folder / "config.json")
    windows = [int(size) for name in WINDOWS if isinstance(size := config.get(name), int)]
    longest = min(model.max_tokens, max([MIXED_TOKENS, *(window + 64 for window in windows)]))
    short = probe_set(encode, longest)[:3]
    text = "The index is published in one step; until then every reader sees the old one. "
    long = encode(text * (1 + longest // 4))
    return [*short, np.concatenate([long[: longest - 1], long[-1:]])]
