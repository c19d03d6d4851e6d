"""What is listed of a corpus: the audio files below a folder."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from wcmatch import glob

from vocoder.audio import files
from vocoder.data.lists import small_extension
from vocoder.paths import identity

log = logging.getLogger("vocoder")

# What a run's folder holds: its samples are no recordings, also where it lies inside the corpus.
RUN = {b"losses.csv", b"overrides.yaml"}


def find(root: Path, include: Iterable[str]) -> Iterator[bytes]:
    """Paths of the audio files below `root` that match a pattern, sorted, one folder at a time.

    Files count by their extension. Hidden files and folders are passed over,
    and so are the folders of runs.

    Args:
        root: Folder; links to folders are followed.
        include: Patterns as `pathlib` reads them: "**/" is any folder, "*" any name. An extension
            may be in capitals.
    """
    # For `pathlib` a backslash is a character like any other.
    patterns = {p.replace("\\", "\\\\") for p in (*include, *map(small_extension, include))}
    matches = glob.compile(sorted(patterns), flags=glob.GLOBSTAR | glob.DOTGLOB | glob.CASE).match
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
