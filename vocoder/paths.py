"""Names and files as they come from outside: what is safe to print, to write and to open."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

from vocoder.errors import InputError, printable

LONGEST = 255  # bytes of a name, on all common file systems


def user_path(path) -> Path:
    """A path that a user gave, with `~` and `~name` as the shell reads them.

    Raises:
        InputError: There is no such home folder, and no file of that very name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        if os.path.lexists(path):
            return Path(path)
        raise InputError(f"{path}: there is no home folder for ~ here; give the path") from error


def file_name(name: str, room: int = 32) -> str:
    """A name that can be written, printed and shown everywhere; `name` itself if it is one.

    Otherwise what can't be printed is escaped, what is too long is cut, and a hash of the whole
    name keeps it apart from others.

    Args:
        name: One component of a path, as the file system has it; need not be UTF-8.
        room: Bytes to leave for what the caller adds, such as ".name.wav.partial".
    """
    safe = printable(name).replace("/", "_")
    longest = LONGEST - room
    if safe == name and len(safe.encode()) <= longest and name not in (".", ".."):
        return name
    digest = hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()
    return f"{safe.encode()[: longest - 9].decode(errors='ignore')}-{digest}"


def output_path(name, suffix: str) -> Path:
    """The relative path of what is made of the file `name`, by names that can be written.

    Args:
        name: Relative path of the source.
        suffix: What comes in place of its extension, such as ".wav".
    """
    name = Path(name)
    folders = (file_name(part) for part in name.parent.parts)
    return Path(*folders, file_name(name.stem) + suffix)


def identity(path) -> tuple[int, int] | None:
    """What all names of one file have in common, also links; None if there is no such file."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def is_inside(path, folder) -> bool:
    """Whether a path, of what need not exist, is a folder or in it, by whatever names."""
    real = Path(os.path.realpath(path))
    return identity(folder) in {identity(part) for part in (real, *real.parents)} - {None}


def make_output_folder(folder, flag: str) -> None:
    """Makes a folder, if need be, and tries to write there.

    Args:
        folder: The folder.
        flag: By which it was given, for messages.

    Raises:
        InputError: It can't be made, or can't be written to, as on a full disk.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{flag}: {folder} can't be written to ({reason})") from error


def open_regular(path) -> int:
    """Opens a regular file to read, without waiting for the writer of a pipe.

    Returns:
        A descriptor, for `os.fdopen`, `soundfile.SoundFile` or `os.close`.

    Raises:
        InputError: There is no such file, it can't be opened, or it is a pipe, device or folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise InputError(f"{path}: no such file") from error
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: can't be opened ({reason})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: no regular file but a folder, a pipe or a device")
    return descriptor


def create(path) -> int:
    """Makes a new file in place of what has its name, without following it if that is a link.

    Returns:
        A descriptor to read and write, as of `open_regular`.

    Raises:
        OSError: It can't be made.
    """
    Path(path).unlink(missing_ok=True)
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)


def open_to_append(path) -> int:
    """Opens a file to write at its end, if there is none but this name for it; makes it if need be.

    Returns:
        A descriptor, for `os.fdopen`.

    Raises:
        InputError: It is a link, has other names, or is no file that can be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        reason = "a link" if os.path.islink(path) else error.strerror
        raise InputError(f"{path}: can't be written ({reason})") from error
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(descriptor)
        reason = "has another name too" if stat.S_ISREG(about.st_mode) else "no regular file"
        raise InputError(f"{path}: can't be written ({reason})")
    return descriptor


def check_no_links(
    folder, below: Collection[str] | None = None, in_place: tuple[str, ...] = ()
) -> None:
    """Checks that what is written into a folder comes out nowhere else.

    Args:
        folder: Itself it may be a link.
        below: Names of the folders in it that are written to, None for all; others pass, and so do
            links to folders that are none of these.
        in_place: How the names of files begin that are written as they are, and not replaced. They
            can't be shared with others (hard links).

    Raises:
        InputError: There is a link, a pipe or a device in it, or a shared file.
    """
    for entry in os.scandir(folder):
        if below is not None and entry.name not in below and os.path.isdir(entry):
            continue
        about = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            check_no_links(entry.path)
        elif stat.S_ISLNK(about.st_mode):
            raise InputError(f"{entry.path}: is a link; {_COPY}")
        elif not stat.S_ISREG(about.st_mode):
            raise InputError(f"{entry.path}: is no file but a pipe or a device")
        elif about.st_nlink > 1 and entry.name.startswith(in_place):
            raise InputError(f"{entry.path}: has another name too; {_COPY}")


_COPY = "what is written here would change something else; a copy in its place would do"


@contextlib.contextmanager
def replacing(path, mode: str = "w", **arguments):
    """Writes a file that gets its name when it is whole, and follows no link on the way.

    If an exception comes out, what was there before stays.

    Args:
        path: The file. What is written meanwhile is called `.NAME.partial`.
        mode, arguments: As of `open`.

    Raises:
        OSError: As `open` and `os.replace` do.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    descriptor = create(partial)
    try:
        with os.fdopen(descriptor, mode, **arguments) as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def asset(name: str) -> Path:
    """The path of `configs` or `data/demo`: inside an installed package, or in the repository."""
    installed = Path(__file__).parent / "assets" / name
    return installed if installed.exists() else Path(__file__).parents[1] / name


def path_of(text: str, key: str) -> Path:
    """`user_path` of the value of a key.

    Raises:
        InputError: Names the key.
    """
    try:
        return user_path(text)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
