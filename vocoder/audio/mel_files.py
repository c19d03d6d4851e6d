"""Mels in `.npy` files, of this package or of others: what they hold, and stretches of them."""

import io
import math
import os
import threading
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.paths import open_regular

HIGHEST = 1000.0  # no logarithm of a mel comes near it, nor does one in decibels

# Bytes that are looked at for the header: as much as NumPy reads of a stranger's, and what is
# before it.
_HEADER = 10_000 + 12
_warnings = threading.Lock()


class MelFile(NamedTuple):
    """A mel on disk; its numbers are read when they are needed, never mapped.

    Attributes:
        path: The file.
        dtype: Of its numbers.
        offset: Bytes before the first number.
        frames: How long it is.
        n_mels: Bands.
        is_fortran: Whether the array lies in the file column after column.
        bands_first: Whether it is (n_mels, frames). Where both are as many, this has to be decided
            by others, see `squares_have_bands_first`.
    """

    path: str
    dtype: np.dtype
    offset: int
    frames: int
    n_mels: int
    is_fortran: bool
    bands_first: bool

    @property
    def is_square(self) -> bool:
        """Whether the shape doesn't tell frames from bands."""
        return self.frames == self.n_mels

    def read(self, start: int = 0, count: int | None = None) -> np.ndarray:
        """Frames [start, start + count), up to the end; (frames, n_mels), float32.

        Raises:
            InputError: The file has been cut since it was opened, or holds NaN, infinity or what no
                mel has.
        """
        stop = self.frames if count is None else min(self.frames, start + count)
        count = max(0, stop - start)
        descriptor = open_regular(self.path)
        try:
            if self.bands_first == self.is_fortran:  # frame after frame
                mel = self._run(descriptor, start * self.n_mels, count * self.n_mels)
            else:
                bands = range(self.n_mels)
                runs = [self._run(descriptor, i * self.frames + start, count) for i in bands]
                mel = np.stack(runs, axis=1)
        except OSError as error:
            raise InputError(f"{self.path}: can't be read ({error.strerror})") from error
        finally:
            os.close(descriptor)
        with np.errstate(over="ignore"):  # infinity then
            mel = mel.reshape(count, self.n_mels).astype(np.float32)
        check_mel(mel, self.path, start)
        return mel

    def _run(self, descriptor, first, count):
        """Numbers that lie one after the other."""
        size = self.dtype.itemsize
        where = self.offset + first * size
        content = b""
        while len(content) < count * size:
            more = os.pread(descriptor, count * size - len(content), where + len(content))
            if not more:
                raise InputError(f"{self.path}: ends early; it has been cut since it was opened")
            content += more
        return np.frombuffer(content, self.dtype)


def open_mel(path, n_mels: int) -> MelFile:
    """Reads the header of a mel, (frames, n_mels) or (n_mels, frames), also with ones in front.

    Raises:
        InputError: The file is missing, no array of floats, cut, or has another number of bands.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            size, content = os.fstat(file.fileno()).st_size, file.read(_HEADER)
        except OSError as error:
            raise InputError(f"{path}: can't be read ({error.strerror})") from error
    try:
        stored, is_fortran, dtype, offset = _header(content)
    except Exception as error:  # hostile headers make NumPy and its parser raise many
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: can't be read as a mel, .npy ({reason[:200]})") from error
    shape = stored
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if dtype.kind != "f" or len(shape) != 2 or n_mels not in shape or min(shape) < 1:
        raise InputError(
            f"{path}: holds {_described(dtype, stored)}, not floats of shape (frames, {n_mels}) or "
            f"({n_mels}, frames), where audio.n_mels={n_mels}"
        )
    expected = math.prod(shape) * dtype.itemsize
    if expected > size - offset:
        raise InputError(
            f"{path}: ends early; {_described(dtype, stored)} has {expected:,} bytes, "
            f"not {size - offset:,}"
        )
    bands_first = shape[1] != n_mels
    frames = shape[1] if bands_first else shape[0]
    return MelFile(str(path), dtype, offset, frames, n_mels, is_fortran, bands_first)


def _header(content):
    """Shape, whether it is in Fortran's order, dtype and offset of the array in a `.npy` file.

    Raises:
        Exception: Of any kind; the content is what a stranger wrote.
    """
    if content.startswith(b"PK"):
        raise ValueError("an archive, such as .npz; numpy.save writes a single array")
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        raise ValueError("no array of NumPy; numpy.save writes one")
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        # Differs in the names of fields alone, which floats don't have.
        (3, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
    # Python 2's numbers make NumPy warn, and odd ones the parser. Filters are the process's own.
    with _warnings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, is_fortran, dtype = readers[version](file)
    shape = tuple(map(int, shape))  # False passes for a number
    if not all(0 <= n < 2**63 for n in shape):
        raise ValueError("it has an impossible shape")
    return shape, is_fortran, dtype, file.tell()


def _described(dtype, shape):
    axes = str(shape) if len(shape) <= 4 else f"of {len(shape)} axes"
    return f"{dtype.name} {axes}"


def squares_have_bands_first(others: Iterable[bool]) -> bool | None:
    """How square mels lie: as most of the others that are read together with them.

    Args:
        others: `bands_first` of those that are not square.

    Returns:
        None if there are no others, or as many of each kind.
    """
    votes = sum(1 if bands_first else -1 for bands_first in others)
    return votes > 0 if votes else None


def check_mel(mel: np.ndarray, what, start: int = 0) -> None:
    """Raises `InputError` at numbers that no mel has.

    Args:
        mel: (..., n_mels).
        what: The file or argument, for the message.
        start: Number of the first frame, for the message.
    """
    peak = np.abs(mel).max(initial=0.0)
    if peak <= HIGHEST:  # False for NaN
        return
    frames = np.abs(mel).max(axis=-1).reshape(-1)
    frame = start + int(np.argmin(frames <= HIGHEST))
    kind = f"values up to {peak:.3g}" if np.isfinite(peak) else "NaN or infinity"
    raise InputError(f"{what}: holds {kind} from frame {frame} on, which no mel has")


def odd_range(mel: np.ndarray, audio: AudioConfig) -> str | None:
    """What shows without recordings that a mel is not of the scale of `audio`; None if nothing.

    Args:
        mel: (frames, n_mels).
        audio: The settings that it should be of.
    """
    unit = 1.0 if audio.log == "natural" else math.log(10)
    floor = math.log(audio.floor) / unit
    low, high = float(mel.min()), float(mel.max())
    if low < floor - 3 / unit:
        return f"goes down to {low:.3g}, where audio.floor={audio.floor:g} ends at {floor:.3g}"
    if 0 <= low < high:
        return f"is nowhere below 0, where silence is at {floor:.3g}"
    return None
