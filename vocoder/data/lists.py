"""Text files that list recordings, one a line."""

import os
from collections.abc import Iterator
from pathlib import Path

from vocoder.audio.files import EXTENSIONS
from vocoder.errors import InputError
from vocoder.paths import open_regular, user_path

# What is most common is tried first.
_ENDINGS = [".wav", ".flac", *sorted(EXTENSIONS - {".wav", ".flac"})]


def entries(path, key: str) -> Iterator[tuple[int, str]]:
    """The lines of a list that name something: (number, what is before the first `|`).

    Lines end at newlines, and at nothing else that Unicode takes for the end of a line.

    Args:
        path: The list, UTF-8.
        key: Its place in the config, or its flag, for messages.

    Raises:
        InputError: It can't be read.
    """
    try:
        with os.fdopen(open_regular(user_path(path)), "rb") as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{key}: {path} can't be read ({error})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.split("|")[0].strip(" \t\r")
        if entry:
            yield number, entry


class Finder:
    """Finds files whose extension is left out in a list, or in capitals on the disk."""

    def __init__(self):
        self._folders = {}  # folder: {name with the extension in small letters: name}

    def find(self, path: str) -> str | None:
        """The path of the file that is meant, or None if there is none."""
        if os.path.isfile(path):
            return path
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = self._names(folder)
        known = os.path.splitext(name)[1].lower() in EXTENSIONS
        for ending in [""] if known else _ENDINGS:
            found = self._folders[folder].get(small_extension(name + ending))
            if found is not None and os.path.isfile(os.path.join(folder, found)):
                return os.path.join(folder, found)
        return None

    @staticmethod
    def _names(folder):
        try:
            return {small_extension(name): name for name in sorted(os.listdir(folder or "."))}
        except (OSError, ValueError):
            return {}


def small_extension(name: str) -> str:
    """A name with its extension in small letters."""
    stem, extension = os.path.splitext(name)
    return stem + extension.lower()


def read_list(root: Path, path: str, key: str) -> list[bytes]:
    """The files that a list names: one a line, up to a `|`, with or without the extension.

    HiFi-GAN's lists for LJSpeech ("LJ001-0001|text") are read so, with its `wavs` as the root.

    Args:
        root: Folder that the paths are relative to.
        path: The list, UTF-8.
        key: Its place in the config, for messages.

    Returns:
        Paths relative to `root`, sorted, each once.

    Raises:
        InputError: The list can't be read or is empty, or a file of it is missing.
    """
    finder, names = Finder(), set()
    for number, listed in entries(path, key):
        name = os.path.relpath(listed, root) if os.path.isabs(listed) else os.path.normpath(listed)
        where = f"{key}: {path}, line {number}: {listed}"
        if name.split(os.sep)[0] == os.pardir:
            raise InputError(f"{where} is not below data.root ({root})")
        found = finder.find(os.path.join(root, name))
        if found is None:
            raise InputError(f"{where} is not a file below data.root ({root})")
        names.add(os.fsencode(os.path.relpath(found, root).replace(os.sep, "/")))
    if not names:
        raise InputError(f"{key}: {path} lists no file")
    return sorted(names)
