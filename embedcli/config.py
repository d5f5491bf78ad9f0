"""Flags, environment and the settings that an index remembers -> the frozen settings of a run.

In: what the user asked for (None for flags that were not given) and the settings stored in the index. Out: one value
for each setting, or a Mismatch that names both.
Not here: parsing of flags (cli/), resolving the model (models/resolve.py), fingerprints (fingerprints.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from embedcli.errors import Mismatch, UsageError
from embedcli.fields import MOST, Fields
from embedcli.records import RecordRule
from embedcli.vault.buckets import FILE, has_scheme, split_url

if TYPE_CHECKING:
    from embedcli.filelist import FileList

MIN_MAX_TOKENS = 16
DEFAULT_MAX_TOKENS = 512
DEFAULT_DIM = 1024
DEFAULT_MAX_GONE_PERCENT = 50.0
FEEDER_THREAD = "embedcli-feeder"
"""The name of the thread that opens and feeds an engine."""

MINILM = "minilm"
MOST_DIM = 1 << 16
MOST_TOKENS = 1 << 24
"""No model has as many: a number above is damage."""
MIB = 1 << 20
LEAVE_OUT = "leave the flag out for the default"


@dataclass(frozen=True)
class Stream:
    """Records on stdin: the name that they have in the index, and whether they are all that it has under that name."""

    name: str
    whole: bool = False
    file: str = ""
    """Where they lie, once stdin was read."""


@dataclass(frozen=True)
class Options:
    """What the user asked for. None: the flag was not given, so the setting of the index or the default counts."""

    index: Path
    sources: tuple[str, ...] = ()
    listed: FileList | None = None
    """Files that stand in a list (`--files-from`)."""
    stream: Stream | None = None
    records: tuple[RecordRule, ...] = ()
    """How records are read; of a pattern that is remembered this is the new rule."""
    model: str | None = None
    dim: int | None = None
    max_tokens: int | None = None
    overlap: int | None = None
    no_text: bool | None = None
    device: str | None = None
    quantization: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool | None = None
    default_excludes: bool | None = None
    follow_links: bool | None = None
    max_file_bytes: int | None = None
    rebuild: bool = False
    reread: bool = False
    rehash: bool = False
    retry_failed: bool = False
    strict: bool = False
    max_gone_percent: float = DEFAULT_MAX_GONE_PERCENT
    max_gone_of: tuple[tuple[str, float], ...] = ()
    """What may be gone of single folders: (absolute path, percent)."""
    mode: int | None = None
    """Who may read a new index: the nine bits of its folder."""
    keep_generations: int = 2
    publish_every_s: float | None = None
    checkpoint_every_s: float = 60.0
    checkpoint_bytes: int = 64 * MIB
    require_complete: bool = False
    """Whether a run that leaves something for the next one exits with 3."""

    @property
    def shown_index(self) -> str:
        """The index in messages and hints."""
        return shown_index(self.index)

    @property
    def names_sources(self) -> bool:
        """Whether this run says what it is about; else it is about every root that the index remembers."""
        return bool(self.sources) or self.listed is not None or self.stream is not None

    def __post_init__(self) -> None:
        if self.stream is not None and (self.sources or self.listed is not None):
            raise UsageError("records on stdin and other sources in one run", "give them to one run each")
        if self.listed is not None and (self.sources or self.rebuild):
            other = "a SOURCE" if self.sources else "`--rebuild`, which reads every source,"
            raise UsageError(f"`--files-from` and {other} in one run", "give them to one run each")
        if self.dim is not None and self.dim < 1:
            raise UsageError(f"`--dim` must be at least 1, not `{self.dim}`", "leave `--dim` out for the default")
        if self.max_tokens is not None and self.max_tokens < MIN_MAX_TOKENS:
            raise UsageError(
                f"`--max-tokens` must be at least {MIN_MAX_TOKENS}, not `{self.max_tokens}`",
                "leave `--max-tokens` out for the default",
            )
        if self.overlap is not None and self.overlap < 0:
            raise UsageError(f"`--overlap` must be 0 or more, not `{self.overlap}`")
        if self.mode is not None and not 0o700 <= self.mode <= 0o777:
            raise UsageError(
                f"`--mode` must be from 700 to 777, not `{self.mode:o}`", "700: only you; 750: your group reads it too"
            )
        if self.keep_generations < 1:
            raise UsageError(f"`--keep-generations` must be at least 1, not `{self.keep_generations}`")
        if self.max_file_bytes is not None and self.max_file_bytes < 1:
            raise UsageError("`--max-file-size` must be at least 1 MiB", "leave it out for the default of 256")
        if self.max_file_bytes is not None and self.max_file_bytes > MOST:
            raise UsageError(f"`--max-file-size` must be at most {MOST // MIB} MiB", LEAVE_OUT)
        if not (self.checkpoint_every_s >= 0 and (self.publish_every_s or 0) >= 0):  # nan is neither
            raise UsageError("`--checkpoint-every` and `--publish-every` must be 0 seconds or more")
        for percent in (self.max_gone_percent, *(percent for _, percent in self.max_gone_of)):
            if not 0 <= percent <= 100:
                raise UsageError(f"`--max-gone` must be a percentage from 0 to 100, not `{percent:g}`")


@dataclass(frozen=True)
class IndexSettings:
    """The settings with which the vectors of an index were made; stored in every manifest."""

    model: str
    commit: str | None
    weights_digest: str
    tokenizer_digest: str
    dim: int
    max_tokens: int
    overlap: int
    no_text: bool
    device_kind: str
    max_file_bytes: int
    quantization: str | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: Fields) -> IndexSettings:
        """Raises Malformed."""
        return cls(
            model=fields.text("model"),
            commit=fields.maybe("commit", fields.text),
            weights_digest=fields.text("weights_digest"),
            tokenizer_digest=fields.text("tokenizer_digest"),
            dim=fields.whole("dim", least=1, most=MOST_DIM),
            max_tokens=fields.whole("max_tokens", least=1, most=MOST_TOKENS),
            overlap=fields.whole("overlap", most=MOST_TOKENS),
            no_text=fields.flag("no_text"),
            device_kind=fields.text("device_kind"),
            max_file_bytes=fields.whole("max_file_bytes", least=1),
            quantization=fields.maybe("quantization", fields.text),
        )


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """EMBEDCLI_CACHE, else XDG_CACHE_HOME/embedcli, else ~/.cache/embedcli; None where there is no home."""
    if given := environment.get("EMBEDCLI_CACHE"):
        return Path(given).absolute()
    if shared := environment.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "embedcli"
    try:
        return Path.home() / ".cache" / "embedcli"
    except RuntimeError:
        return None


def index_folder(flag: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """`--index` > `EMBEDCLI_INDEX` > `./embedcli-index`, absolute; for the URL of a bucket the folder of its mirror.

    Raises UsageError for a flag without a path, or with a URL of something else.
    """
    if flag == "":
        raise UsageError("`--index` is empty: is a shell variable not set?", "name the folder of the index")
    named = flag or environment.get("EMBEDCLI_INDEX") or "embedcli-index"
    if has_scheme(named):
        return _mirror_of(named, environment)
    folder = os.path.abspath(named)
    try:
        folder.encode()
    except UnicodeEncodeError:
        hint = "name another folder with `--index`"
        raise UsageError(f"the path of an index must be UTF-8: `{folder!a}`", hint) from None
    return Path(folder)


MIRRORS = "mirrors"
LONGEST_NAME_BYTES = 255


def _mirror_of(url: str, environment: Mapping[str, str], room: str = "") -> Path:
    """The folder in which this machine works on the index behind `url`; its name is the URL, percent-encoded."""
    url = url.rstrip("/")
    if not url.startswith(FILE):
        split_url(url)
    cache, name = cache_folder(environment), quote(url, safe=" ")
    if cache is None:
        raise UsageError(f"`{url}` needs a cache folder, and there is no home", "name one with `EMBEDCLI_CACHE`")
    if len(name) > LONGEST_NAME_BYTES:
        raise UsageError(f"`{url}` is too long for an index", "use a shorter prefix")
    return cache / room / MIRRORS / name


WORKERS = "workers"


def workers_folder(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the workers of this machine work on the index that their run works on in `folder`: in the same one, or in a
    mirror of their own. A run is alone in its mirror, and may be on this machine or on another one."""
    url = mirrored_url(folder)
    return folder if url is None else _mirror_of(url, environment, WORKERS)


def mirrored_url(folder: Path) -> str | None:
    """The URL of the index that is worked on in `folder`; None for an index that is the folder itself."""
    url = unquote(folder.name)
    return url if folder.parent.name == MIRRORS and has_scheme(url) else None


def shown_index(folder: Path) -> str:
    """What a person calls the index in that folder: the folder, or the URL of which it is the mirror."""
    return mirrored_url(folder) or str(folder)


def model_name(flag: str | None) -> str | None:
    """`--model` as the index stores it: a folder by its absolute path, since the next run may start elsewhere."""
    if flag is None or flag == MINILM:
        return flag
    folder = os.path.abspath(os.path.expanduser(flag))
    return folder if os.path.exists(folder) else flag


_SWITCH: dict[bool | None, str] = {True: "on", False: "off"}


def check_against_memory(asked: Options, memory: IndexSettings) -> None:
    """Raise Mismatch (exit 12), which names both values, when a flag contradicts a setting of the index."""
    pairs = {
        "--dim": (asked.dim, memory.dim),
        "--max-tokens": (asked.max_tokens, memory.max_tokens),
        "--overlap": (asked.overlap, memory.overlap),
        "--no-text": (_SWITCH.get(asked.no_text), _SWITCH[memory.no_text]),
        "--quantization": (asked.quantization, memory.quantization),
    }
    for flag, (wanted, known) in pairs.items():
        if wanted is not None and wanted != known:
            raise mismatch(asked.shown_index, flag, "none" if known is None else known, wanted)


def mismatch(index: str, flag: str, known: object, wanted: object) -> Mismatch:
    name = flag.removeprefix("--").replace("-", "_")
    return Mismatch(
        f"index `{index}` was built with {name} {known}, this run asks for {wanted}",
        f"leave `{flag}` out, add `--rebuild` to rebuild the index with it, or start another index with `--index`",
    )


def settle_chunking(asked: Options, memory: IndexSettings | None, *, model_max_tokens: int) -> tuple[int, int]:
    """(max_tokens, overlap) of the run. Raises UsageError when they do not suit the model."""
    remembered = (memory.max_tokens, memory.overlap) if memory else (min(DEFAULT_MAX_TOKENS, model_max_tokens), 0)
    max_tokens = asked.max_tokens if asked.max_tokens is not None else remembered[0]
    overlap = asked.overlap if asked.overlap is not None else remembered[1]
    if max_tokens > model_max_tokens:
        raise UsageError(
            f"`--max-tokens {max_tokens}` is more than the model's context of {model_max_tokens} tokens",
            f"use `--max-tokens {model_max_tokens}` or less",
        )
    if overlap * 4 > max_tokens:
        raise UsageError(
            f"`--overlap {overlap}` is more than a quarter of max_tokens {max_tokens}",
            f"use `--overlap {max_tokens // 4}` or less",
        )
    return max_tokens, overlap


def settle_dim(asked: Options, memory: IndexSettings | None, *, width: int, matryoshka: bool) -> int:
    """The number of dimensions of the run's vectors. Raises UsageError when the model's vectors have fewer."""
    default = min(DEFAULT_DIM, width) if matryoshka else width
    dim = asked.dim if asked.dim is not None else (memory.dim if memory else default)
    if dim > width:
        raise UsageError(f"`--dim {dim}` is more than the model's width of {width}", f"use `--dim {width}` or less")
    return dim


LEAST_BATCH_TOKENS = 512


@dataclass(frozen=True)
class CardFlags:
    """How a run uses the GPUs; none of these flags changes a vector."""

    gpu_memory: float | None = None
    batch_tokens: int | None = None
    gpus: tuple[int, ...] | None = None
    engine_forward: str | None = None

    def __post_init__(self) -> None:
        if self.gpu_memory is not None and not 0 < self.gpu_memory < inf:
            raise UsageError(f"`--gpu-memory` must be more than 0, not `{self.gpu_memory:g}`", LEAVE_OUT)
        if self.batch_tokens is not None and self.batch_tokens < LEAST_BATCH_TOKENS:
            least = f"`--batch-tokens` must be at least {LEAST_BATCH_TOKENS}"
            raise UsageError(f"{least}, not `{self.batch_tokens}`", LEAVE_OUT)

    def given(self) -> list[str]:
        """The flags that were given, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value is not None]


NO_CARD_FLAGS = CardFlags()


@dataclass(frozen=True)
class CpuFlags:
    """How a run uses the CPU. Vectors of either precision are comparable."""

    threads: int | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"`--threads` must be at least 1, not `{self.threads}`", LEAVE_OUT)


NO_CPU_FLAGS = CpuFlags()


@dataclass(frozen=True)
class Workers:
    """How many workers of a Ray cluster a run wants: with fewer than `least` for ten minutes it ends; `most`: None for
    as many as the cluster has room for now, and more makes a cluster grow that can."""

    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise UsageError(
                f"`--workers` needs `min` of at least 1 and `max` of at least `min`, not {self.least} and {self.most}",
                "such as `--workers ray://auto,min=1,max=8`",
            )


@dataclass(frozen=True)
class Rules:
    """The settings by which the plan of a run decides which sources are read again."""

    index: Path
    read_all: bool
    rebuilding: bool
    rehash: bool
    retry_failed: bool
    read_fingerprint: str
    max_file_bytes: int
    max_gone_percent: float
    max_gone_of: tuple[tuple[str, float], ...] = ()
    """By folder: as it was typed, and as messages show it."""

    def own_percent(self, folder: str) -> float | None:
        """What `--max-gone FOLDER=PERCENT` allows to be gone of exactly this folder, by its absolute path."""
        return next((percent for path, percent in self.max_gone_of if path == folder), None)

    def percent_of(self, folder: str) -> float:
        """The percentage of the innermost named folder that holds this one, else the general one."""
        named = [pair for pair in self.max_gone_of if f"{folder}/".startswith(f"{pair[0].rstrip('/')}/")]
        return max(named, key=lambda pair: len(pair[0]))[1] if named else self.max_gone_percent
