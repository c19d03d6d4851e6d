"""What is known of the files of a corpus: paths, durations, rates and channels, cached.

Everything is kept in flat arrays, about a hundred bytes a file, so that corpora of millions of
files start quickly.
"""

import array
import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
from tqdm import tqdm

from vocoder.data.probe import Probes
from vocoder.paths import open_regular

log = logging.getLogger("vocoder")

_THREADS = 16  # Reading headers waits for the disk or the network, not for the processor.
_PROBES = 8  # processes that open files
_CHUNK = 64  # files a task


class ByteStrings:
    """A sequence of byte strings in two arrays.

    Attributes:
        blob: (bytes,), uint8, all names after one another.
        ends: (names,), int64, where each ends.
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray):
        self.blob = blob
        self.ends = ends

    @classmethod
    def of(cls, names: Iterable[bytes]) -> "ByteStrings":
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

    def kept(self, keep: np.ndarray) -> "ByteStrings":
        """The names where `keep` (names,), bool, is true."""
        lengths = np.diff(self.ends, prepend=0)
        return ByteStrings(self.blob[np.repeat(keep, lengths)], np.cumsum(lengths[keep]))


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
    names: ByteStrings
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
        names: Relative paths, sorted; `ByteStrings` are taken as they are.
        cache: File that holds the index from one run to the next; None for no cache.
        report: Called with the path of a file that is left out, and a line that says why.
    """
    names = names if isinstance(names, ByteStrings) else ByteStrings.of(names)
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
        rows = same_rows(names, old.names) if old else np.full(len(names), -1)
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


def same_rows(names, old_names):
    """For each name its row in `old_names`, or -1, (names,), int64. Both are sorted."""
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
    base = Path(folder).expanduser() if folder else platformdirs.user_cache_path("vocoder")
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
            names = ByteStrings(saved["blob"], saved["ends"])
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
