"""What is in a corpus: the paths, durations, rates and channels of its files, cached.

Everything is kept in flat arrays, about a hundred bytes a file, so that corpora of millions of
files start quickly.
"""

import array
import hashlib
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vocoder.audio import files
from vocoder.config import DataConfig
from vocoder.data.lists import read_list, small_extension
from vocoder.data.probe import Probes
from vocoder.data.quarantine import Quarantine
from vocoder.errors import InputError
from vocoder.paths import identity, open_regular, user_path

log = logging.getLogger("vocoder")

_THREADS = 16  # Reading headers waits for the disk or the network, not for the processor.
_PROBES = 8  # processes that open files
_CHUNK = 64  # files a task


class Names:
    """A sequence of byte strings in two arrays.

    Attributes:
        blob: (bytes,), uint8, all names after one another.
        ends: (names,), int64, where each ends.
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray):
        self.blob = blob
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "Names":
        blob, ends = bytearray(), array.array("q")
        for name in names:
            blob += name
            ends.append(len(blob))
        return cls(np.frombuffer(blob, np.uint8), np.array(ends, np.int64))

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, i: int) -> bytes:
        return self.blob[self.ends[i - 1] if i else 0 : self.ends[i]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        blob, start = memoryview(self.blob), 0
        for end in map(int, self.ends):
            yield bytes(blob[start:end])
            start = end

    def kept(self, keep: np.ndarray) -> "Names":
        """The names where `keep` (names,), bool, is true."""
        lengths = np.diff(self.ends, prepend=0)
        return Names(self.blob[np.repeat(keep, lengths)], np.cumsum(lengths[keep]))


class Index(NamedTuple):
    """The audio files of a corpus, sorted by path.

    Attributes:
        root: Folder of the corpus.
        names: Paths relative to `root`, with "/", as the file system has them (bytes).
        frames: (files,), int64, samples per channel, as `audio.files.info` tells.
        sample_rate: (files,), int32, Hz.
        channels: (files,), uint16.
        mtime_ns, size: (files,), int64, by which a change of the file is noticed.
    """

    root: Path
    names: Names
    frames: np.ndarray
    sample_rate: np.ndarray
    channels: np.ndarray
    mtime_ns: np.ndarray
    size: np.ndarray

    def __len__(self):
        return len(self.names)

    def name(self, i: int) -> str:
        """The relative path of file `i`."""
        return os.fsdecode(self.names[i])

    def path(self, i: int) -> str:
        """The path of file `i`."""
        return os.path.join(self.root, self.name(i))

    def subset(self, keep: np.ndarray) -> "Index":
        """The files where `keep` (files,), bool, is true."""
        columns = {key: getattr(self, key)[keep] for key in _COLUMNS}
        return Index(self.root, self.names.kept(keep), **columns)


# What a run's folder holds: its samples are no recordings, also where it lies inside the corpus.
RUN = {b"losses.csv", b"overrides.yaml"}

_VERSION = 2  # of what is kept; in the first, compressed files had the lengths of their headers
_COLUMNS = {
    "frames": np.int64,
    "sample_rate": np.int32,
    "channels": np.uint16,
    "mtime_ns": np.int64,
    "size": np.int64,
}


Report = Callable[[str, str], None]


def _warn(path, message):
    log.warning("left out: %s", message)


def build(
    root: Path, names: Iterable[bytes], cache: Path | None = None, report: Report = _warn
) -> Index:
    """The index of some files, of which only the new and the changed ones are opened.

    They are opened in other processes, and compressed ones are decoded, since nothing else tells
    how long they are. A file that can't be read, or that crashes such a process,
    is left out and reported.

    Args:
        root: Folder of the corpus.
        names: Relative paths, sorted; `Names` are taken as they are.
        cache: File that holds the index from one run to the next; None for no cache.
        report: Called with the path of a file that is left out, and a line that says why.
    """
    names = names if isinstance(names, Names) else Names.of(names)
    old = _load(root, cache)
    columns = {key: np.zeros(len(names), dtype) for key, dtype in _COLUMNS.items()}
    chunks = [slice(i, min(i + _CHUNK, len(names))) for i in range(0, len(names), _CHUNK)]

    def path(i):
        return os.path.join(root, os.fsdecode(names[i]))

    def look(chunk):
        for i in range(chunk.start, chunk.stop):
            try:
                stat = os.stat(path(i))
            except OSError:  # gone since it was listed; opening it will say so
                stat = None
            columns["mtime_ns"][i] = stat.st_mtime_ns if stat else -1
            columns["size"][i] = stat.st_size if stat else -1

    def open_(chunk):
        return chunk, probes.look([path(i) for i in chunk])

    def note(chunk, found):
        for i, answer in zip(chunk, found, strict=True):
            if "error" in answer:
                report(path(i), answer["error"])
                continue
            for key in ("frames", "sample_rate", "channels"):
                columns[key][i] = answer[key]

    with Probes(min(_PROBES, os.cpu_count() or 1)) as probes, ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(look, chunks):
            pass
        rows = _same_rows(names, old.names) if old else np.full(len(names), -1)
        if old:
            for key in ("mtime_ns", "size"):
                rows[getattr(old, key)[rows] != columns[key]] = -1
            known = rows >= 0
            for key in ("frames", "sample_rate", "channels"):
                columns[key][known] = getattr(old, key)[rows[known]]
        fresh = np.flatnonzero(rows < 0)
        tasks = [fresh[i : i + _CHUNK] for i in range(0, len(fresh), _CHUNK)]
        # `disable=None`: a bar on terminals only.
        with tqdm(total=len(fresh), desc="indexing", unit="file", disable=None) as bar:
            for chunk, found in pool.map(open_, tasks):
                note(chunk, found)
                bar.update(len(chunk))

    index = Index(root, names, **columns)
    readable = index.frames > 0
    if not readable.all():
        index = index.subset(readable)
    if cache and (len(fresh) or not old or len(old) != len(index)):
        _save(index, cache)
    return index


def _same_rows(names, old_names):
    """For each name its row in `old_names`, or -1. Both are sorted."""
    rows = np.full(len(names), -1, np.int64)
    old = enumerate(old_names)
    row, old_name = next(old, (-1, None))
    for i, name in enumerate(names):
        while old_name is not None and old_name < name:
            row, old_name = next(old, (-1, None))
        if old_name == name:
            rows[i] = row
    return rows


def cache_path(folder: str | None, *key: str) -> Path:
    """The file in which the index of a corpus is kept.

    Args:
        folder: `data.cache`; None for the user's cache folder.
        key: What the corpus is: its root, its patterns, its lists.
    """
    if folder is None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vocoder"
    else:
        base = Path(folder).expanduser()
    text = "\0".join(key).encode(errors="surrogateescape")
    return base / f"index-{hashlib.blake2b(text, digest_size=12).hexdigest()}.npz"


def _load(root, cache):
    if cache is None or not cache.exists():
        return None
    try:
        with os.fdopen(open_regular(cache), "rb") as file, np.load(file) as saved:
            if int(saved.get("version", 1)) != _VERSION:
                log.info("%s: an index of another version; it is built anew", cache)
                return None
            names = Names(saved["blob"], saved["ends"])
            return Index(root, names, *(saved[key] for key in _COLUMNS))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        log.warning("%s: not a readable index; it is built anew", cache)
        return None


def _save(index, cache):
    columns = {key: getattr(index, key) for key in _COLUMNS}
    partial = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".part", delete=False) as file:
            partial = file.name
            names = {"blob": index.names.blob, "ends": index.names.ends}
            np.savez(file, version=_VERSION, **names, **columns)
        os.replace(partial, cache)
    except OSError as error:  # an index that can't be kept costs time, not the run
        log.warning("%s: the index can't be kept (%s); data.cache names its folder", cache, error)
        if partial:
            Path(partial).unlink(missing_ok=True)


def find(root: Path, include: Iterable[str]) -> Iterator[bytes]:
    """Paths of the audio files below `root` that match a pattern, sorted, one folder at a time.

    Files count by their extension. Hidden files and folders are passed over,
    and so are the folders of runs.

    Args:
        root: Folder; links to folders are followed.
        include: Patterns as `pathlib` reads them: "**/" is any folder, "*" any name. An extension
            may be in capitals.
    """
    patterns = {*include, *map(small_extension, include)}
    matches = re.compile("|".join(map(_as_regex, sorted(patterns)))).fullmatch
    for name in map(os.fsdecode, _walk(os.fsencode(root))):
        small = small_extension(name)
        if os.path.splitext(small)[1] in files.EXTENSIONS and (matches(name) or matches(small)):
            yield os.fsencode(name)


def _walk(root):
    """Relative paths of what lies below a folder, but for hidden things and runs, sorted."""
    levels = [_level(root, b"")]
    while levels:
        prefix, entries, _ = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
        elif not entry.endswith(b"/"):
            yield prefix + entry
        else:
            level = _level(root, prefix + entry)
            if level[2] not in [above for *_, above in levels]:  # a link in a circle
                levels.append(level)


def _level(root, prefix):
    """A folder: its path relative to `root`, its entries, folders with a "/", and its identity."""
    folder = os.path.join(root, prefix)
    entries = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if not entry.name.startswith(b"."):
                    # So whole paths come out in the order of their bytes.
                    entries.append(entry.name + (b"/" if _is_folder(entry) else b""))
    except OSError as error:
        log.warning("left out: %s: the folder can't be read (%s)", os.fsdecode(folder), error)
        entries = []
    if set(entries) >= RUN:
        entries = []
    return prefix, iter(sorted(entries)), identity(folder)


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself; opening it will say so
        return False


def _as_regex(pattern):
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    return "".join(
        piece.replace("[!", "[^")
        if piece.startswith("[") and piece.endswith("]")
        else parts.get(piece) or re.escape(piece)
        for piece in pieces
    )


def split(names: Names, fraction: float) -> np.ndarray:
    """Which files validate: those whose hash of the path, in [0, 1), is below `fraction`.

    So a file stays on its side when others come or go. There is always one file at least on each
    side, if need be the one whose hash comes closest; a single file is on both.

    Returns:
        (files,), bool.
    """
    hashes = np.fromiter(
        (int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) for name in names),
        np.uint64,
        len(names),
    )
    validates = hashes < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    if len(names) < 2:
        return np.ones(len(names), bool)
    if not validates.any():
        validates[hashes.argmin()] = True
        log.warning(
            "data.validation_fraction: %g of %d files is none; %s validates",
            fraction,
            len(names),
            os.fsdecode(names[int(hashes.argmin())]),
        )
    elif validates.all():
        validates[hashes.argmax()] = False
        log.warning("data.validation_fraction: %g left no file to train on; one does", fraction)
    return validates


def load_corpus(
    data: DataConfig, sample_rate: int | None = None, quarantine: Quarantine | None = None
) -> tuple[Index, Index]:
    """Finds the files of a corpus and splits them, as the config says.

    Args:
        data: Where they are.
        sample_rate: Files at another rate are left out; None takes any.
        quarantine: Gets the files that are left out.

    Returns:
        The index of the files that train, and of those that validate.

    Raises:
        InputError: Names the key: there is no such folder or list, no audio, or too many bad files.
    """
    if not data.root or data.root == "???":
        raise InputError("data.root: missing; give data.root=FOLDER")
    root = user_path(data.root)
    if not os.path.isdir(root):
        raise InputError(f"data.root: {root} is not a folder; give the one with the recordings")
    train_list = validation_list = None
    if data.train_list is not None:
        train_list = read_list(root, data.train_list, "data.train_list")
    if data.validation_list is not None:
        validation_list = read_list(root, data.validation_list, "data.validation_list")

    names = train_list
    if names is None:
        if not data.include:
            raise InputError('data.include: empty; ["**/*"] takes everything')
        names = find(root, data.include)
    if validation_list is not None:
        names = sorted({*names, *validation_list})
    lists = [data.train_list or "", data.validation_list or ""]
    key = [str(root.resolve()), *data.include, *lists]
    names = Names.of(names)
    quarantine = quarantine or Quarantine(None, max_fraction=1.0)
    index = build(root, names, cache_path(data.cache, *key), quarantine.add)
    if sample_rate is not None:
        index = _of_rate(index, sample_rate, quarantine)
    quarantine.total = len(names)
    quarantine.check()
    if not len(index):
        looked = f"patterns {', '.join(data.include)}" if train_list is None else "of the list"
        raise InputError(f"data.root: no audio found below {root} ({looked})")

    if validation_list is None:
        validates = split(index.names, data.validation_fraction)
        trains = ~validates if len(index) > 1 else validates
        if len(index) == 1:
            log.warning("data.root: a single file; it trains and validates")
    else:
        validates = _are_in(index.names, validation_list)
        trains = ~validates if train_list is None else _are_in(index.names, train_list)
        both = int((trains & validates).sum())
        if both:
            log.warning("data.validation_list: %d of its files are in data.train_list too", both)
    for key, side in {"train_list": trains, "validation_list": validates}.items():
        if not side.any():
            raise InputError(f"data.{key}: no readable audio is left on this side of the split")
    return index.subset(trains), index.subset(validates)


def _of_rate(index, sample_rate, quarantine):
    wanted = index.sample_rate == sample_rate
    for i in np.flatnonzero(~wanted):
        path, rate = index.path(i), index.sample_rate[i]
        quarantine.add(path, f"{path} is at {rate} Hz, not at audio.sample_rate={sample_rate}")
    return index if wanted.all() else index.subset(wanted)


def _are_in(names, listed):
    return _same_rows(names, listed) >= 0
