"""What we use of SGLang is there, under these names: read from its installed source, nothing is imported.

In: the source of the version that the extra `gpu` pins. Out: a failure that names what moved, before a card is rented.
Not here: how SGLang behaves (test_front_end.py, test_deaths.py).
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from embedcli.engines.nvml import Card
from embedcli.engines.sglang import models
from embedcli.engines.sglang.engine import host_environment
from embedcli.engines.sglang.settings import GIB, SGLangSettings, Shape, plan

SPEC = find_spec("sglang")
FOLDER = Path(SPEC.origin).parent if SPEC and SPEC.origin else Path()

pytestmark = pytest.mark.skipif(SPEC is None, reason="SGLang is not installed")

H100 = Card(0, "GPU-1", "NVIDIA H100", (9, 0), 80 * GIB, 79 * GIB, "580.65", (13, 0))
OUR_CLASS = "Qwen3ForCausalLM"
SMALL = Shape(28, 1_024, 3_072, 16, 8, 128, 151_669, 40_960, True)


@cache
def text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def members(file: str, name: str) -> dict[str, ast.AST]:
    """What a class of that file states in its body: fields and methods, by name."""
    (found,) = (node for node in ast.parse(text(file)).body if isinstance(node, ast.ClassDef) and node.name == name)
    stated: dict[str, ast.AST] = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stated[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            stated[node.target.id] = node
    return stated


@cache
def argument_names() -> frozenset[str]:
    """What SGLang puts together into ServerArgs: the fields that arg_groups/fields declares by `A[...]`."""
    names = set()
    for file in sorted((FOLDER / "srt/arg_groups/fields").glob("*.py")):
        for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(found, ast.AnnAssign) and isinstance(found.target, ast.Name):
                kind = found.annotation.value if isinstance(found.annotation, ast.Subscript) else found.annotation
                if isinstance(kind, ast.Name) and kind.id == "A":
                    names.add(found.target.id)
    return frozenset(names)


def parameters(function: ast.AST) -> list[str]:
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    return [one.arg for one in function.args.args]


def test_sglangs_version_is_the_one_that_the_extra_pins() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert f"sglang=={version('sglang')}" in project["project"]["optional-dependencies"]["gpu"]


def test_the_engine_is_made_and_ended_as_we_do_it() -> None:
    engine = members("srt/entrypoints/engine.py", "Engine")
    assert {"shutdown", "run_scheduler_process_func", "_launch_detokenizer_subprocesses"} <= engine.keys()
    source = text("srt/entrypoints/engine.py")
    for used in ("self._scheduler_init_result =", "scheduler_infos", "self.tokenizer_manager", "self.loop ="):
        assert used in source, used


def test_sglangs_scheduler_has_the_methods_that_we_replace() -> None:
    """engines/sglang/scheduler.py runs it with some of its methods replaced."""
    scheduler = text("srt/managers/scheduler.py")
    changed = {"_apply_war_barrier", "record_batch_in_overlap", "publish_load_snapshot"}
    assert changed <= members("srt/managers/scheduler.py", "Scheduler").keys()
    assert "snapshot = self.publish_load_snapshot(force=True)" in scheduler
    (process,) = (
        node
        for node in ast.parse(scheduler).body
        if isinstance(node, ast.FunctionDef) and node.name == "run_scheduler_process"
    )
    assert parameters(process)[:7] == [
        "server_args",
        "port_args",
        "gpu_id",
        "tp_rank",
        "pp_rank",
        "dp_rank",
        "pipe_writer",
    ]
    file = "srt/managers/scheduler_components/batch_result_processor.py"
    processor = members(file, "SchedulerBatchResultProcessor")
    prefill = ast.unparse(processor["process_batch_result_prefill"])
    assert "result.copy_done.synchronize()" in prefill, "a batch must be over before its places are given away"
    begun, ended = prefill.find("free_group_begin()"), prefill.find("free_group_end()")
    assert 0 < begun < ended < prefill.find("stream_output("), "and all of them, before another batch is made ready"
    allocator = members("srt/mem_cache/allocator/base.py", "BaseTokenToKVPoolAllocator")
    assert "return free_index.clone()" in ast.unparse(allocator["_copy_for_free_group"])


def test_vectors_can_leave_the_scheduler_as_bytes() -> None:
    """engines/sglang/scheduler.py replaces what makes lists of them. Messages are pickled, so they may hold bytes."""
    file = "srt/managers/scheduler_components/batch_result_processor.py"
    processor = members(file, "SchedulerBatchResultProcessor")
    convert = processor["_convert_embeddings"]
    assert isinstance(convert, ast.FunctionDef) and [one.arg for one in convert.args.kwonlyargs] == ["result"]
    prefill = ast.unparse(processor["process_batch_result_prefill"])
    assert "embeddings = self._convert_embeddings(result=result)" in prefill
    assert "SGLANG_USE_PICKLE_IPC = EnvBool(True)" in text("srt/environ.py")
    assert '"embedding": recv_obj.embeddings[i]' in text("srt/managers/tokenizer_manager.py")


def test_the_engine_expects_two_lists_of_the_detokenizer_that_we_leave_out() -> None:
    source = text("srt/entrypoints/engine.py")
    call = re.search(r"detoken_procs, detoken_names = cls\._launch_detokenizer_subprocesses\((.*?)\)", source, re.S)
    assert call and "port_args=port_args" in call[1]


def test_a_request_is_generated_from_ids_and_dimensions() -> None:
    manager = members("srt/managers/tokenizer_manager.py", "TokenizerManager")
    assert parameters(manager["generate_request"]) == ["self", "obj", "request"]
    assert {"input_ids", "dimensions"} <= members("srt/managers/io_struct.py", "EmbeddingReqInput").keys()


def test_sglangs_signal_handlers_can_be_replaced_by_ours() -> None:
    handlers = members("srt/managers/tokenizer_manager.py", "SignalHandler")
    for name in ("sigterm_handler", "running_phase_sigquit_handler"):
        assert name in handlers
    source = text("srt/managers/tokenizer_manager.py")
    assert "self.signal_handler_class = SignalHandler" in source
    assert "self.signal_handler_class(self)" in source, "ours must be asked for at the first request, not before"


def test_the_scheduler_reports_the_size_of_its_pool() -> None:
    assert '"max_total_num_tokens": self.max_total_num_tokens' in text("srt/managers/scheduler.py")
    resolved = members("srt/server_args.py", "ServerArgs")["resolved_dict"]
    assert "resolution_result(self, field.name)" in ast.unparse(resolved), "settled values, not those that were given"
    assert "page_size" in argument_names()
    assert "_page_size_default" in text("srt/arg_groups/pipeline.py"), "where no page size is given, one is settled"


@pytest.mark.parametrize("flash", [True, False])
def test_sglang_knows_every_argument_that_we_give(flash: bool) -> None:
    chosen = plan(H100, SMALL, max_tokens=32_768, asked=SGLangSettings(), flash=flash).arguments
    assert not chosen.keys() - argument_names()
    assert {"model_path", "load_format"} <= argument_names()


def test_sglang_keeps_no_keys_and_values_on_the_conditions_that_we_check() -> None:
    """prefill_only_disable_kv_cache is refused at the start unless the attention skips the cache."""
    assert "fa_skip_kv_cache" in text("srt/layers/attention/flashattention_backend.py")


def test_the_environment_that_we_set_is_read() -> None:
    ours = host_environment({"EMBEDCLI_CACHE": "/c", "HOME": "/h"}, H100, own_forward=True)
    names = {name for name in ours if name.startswith("SGLANG_")}
    assert len(names) == 3
    read = text("srt/environ.py")
    for name in names:
        assert name in read, name


def test_sglang_finds_our_model_class_and_prefers_it_to_its_own() -> None:
    registry = text("srt/models/registry.py")
    assert "envs.SGLANG_EXTERNAL_MODEL_PACKAGE.get()" in registry and 'hasattr(module, "EntryClass")' in registry
    assert f"class {OUR_CLASS}(" in text("srt/models/qwen3.py")
    ours = (Path(models.__file__).parent / "qwen3.py").read_text()
    assert f"EntryClass = {OUR_CLASS}" in ours


def test_what_our_forward_pass_takes_from_sglangs_model_is_there() -> None:
    attention = text("srt/models/qwen3.py")
    for used in ("qkv_proj", "o_proj", "q_norm", "k_norm", "rotary_emb", "num_heads", "num_kv_heads", "head_dim"):
        assert f"self.{used} =" in attention, used
    for used in ("input_layernorm", "post_attention_layernorm", "mlp", "self_attn"):
        assert f"self.{used} =" in attention, used
    assert parameters(members("srt/models/qwen3.py", OUR_CLASS)["forward"])[1:] == [
        "input_ids", "positions", "forward_batch", "input_embeds", "get_embedding", "pp_proxy_tensors",
    ]  # fmt: skip
    backend = text("srt/layers/attention/flashattention_backend.py")
    assert "result = self.flash_attn_varlen_func(" in backend
    metadata = members("srt/layers/attention/flashattention_backend.py", "FlashAttentionMetadata")
    assert {"cu_seqlens_q", "max_seq_len_q"} <= metadata.keys()
    fp8 = text("srt/layers/quantization/fp8.py")
    for used in ("self.block_quant =", "self.use_marlin =", "self.use_mxfp8 =", "Parameter(qweight.t()"):
        assert used in fp8, used
    assert "embeddings" in members("srt/layers/pooler.py", "EmbeddingPoolerOutput")
    assert "def get_attn_backend()" in text("srt/model_executor/forward_context.py")


def test_files_that_sglang_leaves_in_shared_memory_have_the_name_that_we_remove() -> None:
    assert "instance_id" in members("srt/server_args.py", "PortArgs")
    source = text("srt/managers/load_snapshot.py")
    assert "/dev/shm/sglang_loads_{safe_name}_" in source and "shm_path_for(port_args.instance_id)" in source
