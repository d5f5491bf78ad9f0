"""The published generations of an index: which there are, which is current, and what their files hold.

In: an index folder. Out: Generations, their documents and probe sets, each file checked against its digest; errors
say which command repairs the index.
Not here: publishing the next generation (publish.py), removing old ones (clearing.py).
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedcli.columns import Floats
from embedcli.errors import DamagedIndex, NoIndex, StorageError, quoted
from embedcli.fields import Fields
from embedcli.index import state
from embedcli.index.documents import SCHEMA
from embedcli.index.leftovers import leftovers
from embedcli.index.manifest import FORMAT, Generation
from embedcli.index.shards import Shard
from embedcli.paths import everything_below, exists, is_file, is_folder, is_link, matching
from embedcli.vault.disk import Disk, digest_of
from embedcli.vault.stubs import fetched

_NUMBER = re.compile(r"\d{6,}")
UNREADABLE = (OSError, ValueError, RecursionError)
"""The exceptions that reading a damaged manifest can raise."""
LONGEST_TARGET = 200
AT_ONCE_ROWS = 1 << 13
_OURS = {"current", "generations", "staging", "keys", "changes", "state", "cache"}


class Index:
    """An index folder and the paths in it. `shown` is its name in messages; `warn` is called with a line for each file
    that had to be skipped."""

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk,
        clock: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = folder
        self.disk = disk
        self.clock = clock
        self.warn = warn
        self.shown = disk.shown(folder)
        self.generations = folder / "generations"
        self.staging = folder / "staging"
        self.keys = folder / "keys"
        self.changes = folder / "changes"
        self.state = folder / "state"
        self.cache = folder / "cache"

    # ---- what is there

    @property
    def is_there(self) -> bool:
        """Whether the folder of the index is there. Raises OSError."""
        return exists(self.folder)

    @property
    def is_begun(self) -> bool:
        """Whether a run has made the folders of the index. Raises OSError."""
        return exists(self.generations)

    @property
    def kept(self) -> tuple[Path, ...]:
        """The folders of what runs store. `generations` is the last: without it the folder is known for no index."""
        return (self.staging, self.keys, self.changes, self.generations)

    @property
    def is_empty(self) -> bool:
        """Whether it has no generation, and nothing that a run has left. Raises OSError."""
        return self.current_number() is None and not any(
            any(folder.iterdir()) for folder in self.kept if exists(folder)
        )

    def has(self, number: int) -> bool:
        """Whether the folder of this generation is there. Raises OSError."""
        return exists(self.path(number))

    def check(self) -> None:
        """Raise NoIndex when the folder is a file, holds files that are not of an index, or can be the folder of none:
        readers of Parquet, ours too, take paths as text."""
        if not _is_text(self.folder.absolute()):
            raise NoIndex(
                f"`{self.shown}` cannot be the folder of an index: its path is not UTF-8",
                "name an empty or a new folder with `--index`",
            )
        if not self.is_there:
            return
        if not is_folder(self.folder):
            raise NoIndex(f"`{self.shown}` is a file, not an index", "name a folder with `--index`")
        try:
            names = {name for name in os.listdir(self.folder) if name != "lock" and not name.endswith(".tmp")}
        except OSError as error:
            raise StorageError(f"cannot read `{self.shown}`: {error.strerror}", "check its permissions") from error
        if names and not self._is_ours(names):
            raise NoIndex(
                f"`{self.shown}` is not an index: it holds `{min(names)}`",
                "name an empty or a new folder with `--index`",
            )

    def _is_ours(self, names: set[str]) -> bool:
        """Recognise an index by its `current` link, a manifest or a run's header; or, if a kill interrupted its
        creation, by our empty folders."""
        if self.linked_number() is not None or matching(self.generations, "[0-9]*/manifest.json"):
            return True
        if matching(self.staging, "[0-9]*-*/run.json"):
            return True
        if "generations" not in names or not names <= _OURS:
            return False
        return not any(
            is_file(path) and path.suffix != ".tmp"
            for name in names - {"state"}
            for path in everything_below(self.folder / name)
        )

    def create(self, mode: int | None = None) -> None:
        """Make the folders of an index, as open as `mode` or else the index's own folder. Raises StorageError, also
        where the filesystem has no symlinks."""
        for folder in (self.generations, self.staging, self.keys, self.changes, self.state):
            self.disk.make_folder(folder, mode)
        number = self.linked_number()
        if number is None:
            self.disk.check_symlinks(self.folder)
        elif self.current_is_copied:
            self.disk.point(self.folder / "current", f"generations/{number:06d}")
            self.warn(f"`{self.folder / 'current'}` was a copy of generation {number}: it is a link to it again")

    def linked_number(self) -> int | None:
        """The number that `current` points to, whether or not that generation exists, or that it is a copy of; None
        without such a link or copy."""
        try:
            return _number_in(os.readlink(self.folder / "current"))
        except OSError:
            return self._copied_number()

    def _copied_number(self) -> int | None:
        """The generation of which `current` is a copy: a backup that followed links made a folder of it, one that knows
        none a file with the target."""
        place = self.folder / "current"
        try:
            if is_file(place):
                return _number_in(place.read_text("utf-8")) if place.stat().st_size < LONGEST_TARGET else None
            copied = (place / "manifest.json").read_bytes()
            number = Fields(json.loads(copied)).whole("generation")
            return number if (self.path(number) / "manifest.json").read_bytes() == copied else None
        except UNREADABLE:
            return None

    @property
    def current_is_copied(self) -> bool:
        """Whether `current` is recognised, but no link: `create` mends it."""
        return not is_link(self.folder / "current") and self.linked_number() is not None

    def current_number(self) -> int | None:
        """None where nothing was published yet. Raises DamagedIndex when `current` is missing or no link of ours."""
        number = self.linked_number()
        link = self.folder / "current"
        if number is None and os.path.lexists(link):
            raise DamagedIndex(f"`{link}` is not a link to a generation", self.way_back())
        if number is None and self.numbers():
            raise DamagedIndex(f"`{link}` is missing, but the index has published generations", self.way_back())
        return number

    def current(self) -> Generation | None:
        number = self.current_number()
        return None if number is None else self.read(number)

    def path(self, number: int) -> Path:
        return self.generations / f"{number:06d}"

    def read(self, number: int) -> Generation:
        """The generation as its manifest describes it. Raises DamagedIndex, and NoIndex when it is too new."""
        try:
            return self._load(number)
        except UNREADABLE as error:
            path = self.path(number) / "manifest.json"
            raise DamagedIndex(f"cannot read `{path}`: {_why(error)}", self.way_back(number)) from error

    def _load(self, number: int) -> Generation:
        """Raises one of UNREADABLE, and NoIndex when it is from a newer version."""
        data = json.loads((self.path(number) / "manifest.json").read_bytes())
        if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > FORMAT:
            raise NoIndex(
                f"index `{self.shown}` was written by a newer version of embedcli:"
                f" its format is {data['format']}, this version reads format {FORMAT}",
                "upgrade with `pip install --upgrade embedcli`",
            )
        generation = Generation.from_json(data, vectors=self.path(number) / "vectors", keys=self.keys)
        if generation.number != number:
            raise ValueError(f"it is the manifest of generation {generation.number}")
        return generation

    def documents(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The documents of a generation. Raises DamagedIndex."""
        path = self._sound_file(number, "documents.parquet")
        return pq.read_table(path, schema=SCHEMA, columns=list(columns) if columns else None)

    def documents_in_parts(self, number: int) -> Iterator[pa.Table]:
        """The documents of a generation, some at a time; columns that an older version did not write are null. Raises
        StorageError."""
        with pq.ParquetFile(self._sound_file(number, "documents.parquet")) as file:
            for batch in file.iter_batches(AT_ONCE_ROWS, use_threads=False):
                columns = [
                    batch.column(field.name) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
                    for field in SCHEMA
                ]
                yield pa.table(columns, schema=SCHEMA)

    def probe(self, number: int) -> Floats:
        """The probe vectors of a generation. When they are damaged: those of an older generation with the same model,
        dim and cut of the texts; without one, an array of no rows."""
        generation = self.read(number)
        for other in [generation, *self.made_alike(generation)]:
            try:
                path = self._sound_file(other.number, "probe.npy")
            except DamagedIndex as error:
                self.warn(f"{error}; an older probe set is used, or it is embedded again")
                continue
            vectors: Floats = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
            return vectors
        return np.zeros((0, generation.settings.dim), np.float32)

    def has_sound_probe(self, generation: Generation) -> bool:
        try:
            return bool(self._sound_file(generation.number, "probe.npy"))
        except DamagedIndex:
            return False

    def made_alike(self, generation: Generation) -> Iterator[Generation]:
        """The older generations on disk with the same model, dim and probe texts, the newest first."""
        for number in reversed(self.numbers()):
            other = self.readable(number) if number < generation.number else None
            if other is not None and _probe_settings(other) == _probe_settings(generation):
                yield other

    def _sound_file(self, number: int, name: str) -> Path:
        """The path of a file of a generation, after its digest was checked. Raises DamagedIndex."""
        if problem := self._damage(self.read(number), name):
            raise DamagedIndex(problem, self.way_back(number))
        return self.path(number) / name

    def _damage(self, generation: Generation, name: str) -> str:
        """What is wrong with a file of a generation by its digest; empty where nothing is."""
        path = self.path(generation.number) / name
        try:
            sound = digest_of(fetched(path)) == generation.files[name].sha256
        except OSError as error:
            return f"cannot read `{path}`: {error.strerror}"
        return "" if sound else f"`{path}` is damaged: its sha256 is not the one in the manifest"

    def way_back(self, damaged: int | None = None) -> str:
        """A hint: the command that makes a readable generation current again, or else how to restore the index."""
        for number in reversed(self.numbers()):
            if number != damaged and not self.lacks(number):
                return (
                    f"`embedcli rollback --to {number} --index {quoted(self.shown)}` makes generation {number} current"
                )
        return "restore the folder from a copy with its links (`cp -a`, `rsync -a`), or start a new one with `--index`"

    def lacks(self, number: int) -> str:
        """Why a generation cannot be read; empty where each file exists and has its size, and the table of documents is
        as it was written."""
        try:
            generation = self._load(number)
        except (*UNREADABLE, NoIndex) as error:
            return f"cannot read `{self.path(number) / 'manifest.json'}`: {_why(error)}"
        files = {self.path(number) / name: file.size_bytes for name, file in generation.files.items()}
        files |= {shard.path: shard.size_bytes for shard in generation.shards.values()}
        torn = next((path for path, size_bytes in files.items() if _size_bytes(path) != size_bytes), None)
        return f"`{torn}` is missing or torn" if torn is not None else self._damage(generation, "documents.parquet")

    def damaged(self, generation: Generation) -> set[str]:
        """Names of shards that are missing, have the wrong size, or were found damaged by `verify` or a run."""
        found = state.read_damaged(self.state)
        found |= {shard.name for shard in generation.shards.values() if _size_bytes(shard.path) != shard.size_bytes}
        return found & generation.shards.keys()

    def ancestors(self) -> Iterator[Generation]:
        """The current generation, its parent, and so on, as far as their manifests can be read."""
        generation = self.current()
        while generation is not None:
            yield generation
            generation = None if generation.parent is None else self.readable(generation.parent)

    def readable(self, number: int) -> Generation | None:
        """A generation that may be missing or damaged: None where its manifest cannot be read."""
        try:
            return self._load(number)
        except (*UNREADABLE, NoIndex):
            return None

    def numbers(self) -> list[int]:
        """The published generations on disk, ascending, whether or not they are ancestors of the current one.

        A generation that was written but never became current still has its pending change list; it does not count.
        """
        names = (path.parent.name for path in matching(self.generations, "[0-9]*/manifest.json"))
        found = sorted(int(name) for name in names if name.isdigit())
        current = self.linked_number()
        return [number for number in found if number == current or not exists(self.pending_changes(number, number))]

    def next_number(self) -> int:
        """One more than the highest number ever published; no number is used twice."""
        names = [path.name for folder in (self.generations, self.changes) for path in matching(folder, "*")]
        used = [int(match.group()) for name in names if (match := _NUMBER.search(name))]
        return 1 + max([*used, self.linked_number() or 0])

    def kept_shards(self) -> Iterable[Shard]:
        """Every shard of every generation on disk, each once, those of the oldest generation first."""
        found: dict[str, Shard] = {}
        for number in self.numbers():
            generation = self.readable(number)
            if generation is None:
                self.warn(f"the vectors of generation {number} are not reused: its manifest cannot be read")
            else:
                found |= generation.shards
        return found.values()

    def change_list(self, number: int) -> Path:
        """The name of change list `number` once it is published."""
        return self.changes / f"{number:06d}.parquet"

    def pending_changes(self, number: int, target: int) -> Path:
        """The pending name of change list `number`, under which it waits until generation `target` is current."""
        return self.changes / f"{number:06d}.when-{target:06d}"


def _number_in(target: str) -> int | None:
    path = Path(target)
    return int(path.name) if path.parent.name == "generations" and path.name.isdigit() else None


def _why(error: BaseException) -> str:
    """An exception as a reason, without the path that the message has already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _size_bytes(path: Path) -> int:
    """The size of a file; -1 where it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _probe_settings(generation: Generation) -> tuple[str, int, int, int]:
    return (
        generation.fingerprints.model,
        generation.settings.dim,
        generation.probe_max_tokens,
        generation.probe_version,
    )


def current_of(index: Index) -> Generation:
    """The current generation. Raises NoIndex where nothing was published, and DamagedIndex."""
    index.check()
    current = index.current()
    if current is not None:
        if index.current_is_copied:
            index.warn(
                f"`{index.folder / 'current'}` is a copy of generation {current.number} and no link, as `cp -rL` and"
                f" zip make it: `embedcli ingest --index {quoted(index.shown)}` mends it"
            )
        return current
    if leftovers(index.staging):
        raise NoIndex(
            f"`{index.shown}` has published nothing yet; the documents that its first run finished are kept",
            f"continue with `embedcli ingest --index {quoted(index.shown)}`",
        )
    raise NoIndex(
        f"`{index.shown}` is not an index, or has published nothing yet",
        f"make one with `embedcli ingest SOURCE --index {quoted(index.shown)}`",
    )


def _is_text(path: Path) -> bool:
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True
