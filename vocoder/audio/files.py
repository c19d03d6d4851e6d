"""Audio files: what they hold, stretches of them as float32 mono, and writing.

Formats are libsndfile's: WAV, FLAC, OGG, MP3, AIFF and more. Whatever the format, a stretch of a
file is the same stretch of what the whole file decodes to from its start on.
"""

import contextlib
import functools
import io
import itertools
import math
import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from vocoder.audio.quiet import silenced
from vocoder.errors import InputError
from vocoder.paths import open_regular, replacing

# Extensions of what libsndfile reads, also where they are not the name of the format. RAW has no
# header, that of SD2 is in another file, and .htk files hold features as a rule.
EXTENSIONS = frozenset(
    f".{name.lower()}" for name in soundfile.available_formats().keys() - {"RAW", "HTK", "SD2"}
) | {".aif", ".aifc", ".oga", ".opus", ".snd", ".sph", ".wave"}

# Samples (of the lower rate) that soxr needs on each side of a stretch: with 256 it already
# equals the same stretch of the whole file to 1e-6.
_CONTEXT = 512

# Beyond these a header is taken for broken. Silence in FLAC has almost 5,000 samples a byte.
_RATES = (1_000, 1_000_000)
_MOST_PER_BYTE = 10_000
_LOUDEST = 1000.0

SILENCE = 2.0**-15  # a step of 16 bits: what stays below is silence
_BLOCK = 1 << 18  # samples of all channels

_UNKNOWN = 2**63 - 1  # libsndfile's number of samples where a header, such as a pipe's, has none

# How many samples earlier a decoder has to begin so that it arrives where it would be had it read
# from the start on. A frame of MP3 may refer to 255 bytes before it, and a frame of 8 kbit/s in
# stereo holds 3 of them: 96 frames of 576 samples. Opus has forgotten all after half a second. The
# others can't seek. Vorbis is told by its pages.
_MPEG = ("MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")
_LEAD = (
    dict.fromkeys(_MPEG, 96 * 576)
    | {"OPUS": 24_000}
    | dict.fromkeys(("GSM610", "G721_32", "G723_24", "G723_40", "DPCM_8", "DPCM_16"), math.inf)
    | dict.fromkeys(("DWVW_12", "DWVW_16", "DWVW_24", "DWVW_N"), math.inf)
    | dict.fromkeys(("NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"), math.inf)
)
_STEP = 576  # samples of the shortest frame of MP3
_PAGE = 27 + 255 + 255 * 255  # bytes of the largest page of Ogg


class AudioInfo(NamedTuple):
    """Samples per channel, Hz, and channels of a file."""

    frames: int
    sample_rate: int
    channels: int


def info(path, frames: int | None = None) -> AudioInfo:
    """What a file holds.

    Where the header doesn't know how long it is, which is so of compressed formats, the file is
    decoded to its end.

    Args:
        path: File.
        frames: Its length, if that is known.

    Raises:
        InputError: The file isn't there, can't be read as audio, holds no samples, or says what
            can't be: a rate outside 1 kHz to 1 MHz, more samples than fit in its bytes.
    """
    with _opened(path, frames) as file:
        return AudioInfo(file.length, file.samplerate, file.channels)


def read(path, start: int = 0, frames: int | None = None, stereo: str = "mix") -> np.ndarray:
    """Samples of a file at its own rate, as mono.

    Args:
        path: File.
        start: First sample.
        frames: How many; None for all until the end.
        stereo: "mix" (mean of the channels) or "refuse".

    Returns:
        (samples,), float32.

    Raises:
        InputError: The file can't be read, is empty, ends early, or has several channels that
            are refused.
    """
    with _opened(path) as file:
        stop = file.length if frames is None else start + frames
        return _read(file, start, stop, stereo)


def blocks(path) -> Iterator[np.ndarray]:
    """The whole of a file at its own rate, in order.

    Yields:
        (samples,) or (samples, channels), float32, 2^18 values at most.

    Raises:
        InputError: As in `read`, and for samples that `check_samples` refuses.
    """
    with _opened(path) as file:
        yield from _blocks(file)


def mixed(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels: (samples,) or (samples, channels) -> (samples,)."""
    return samples if samples.ndim == 1 else samples.mean(axis=1)


def check_samples(samples: np.ndarray, path) -> float:
    """The peak of some samples of a file.

    Raises:
        InputError: There are NaN or infinities among them, or they are a thousand times too loud.
    """
    peak = max(float(samples.max()), -float(samples.min()))
    if math.isnan(peak) or math.isinf(peak):  # max and min pass NaN on
        raise InputError(f"{path}: holds samples that are no numbers")
    if peak > _LOUDEST:
        raise InputError(f"{path}: holds samples of {peak:.3g}, where full scale is 1")
    return peak


def is_silent(path, sample_rate: int | None = None) -> bool:
    """Whether no sample of the file, as mono and at a rate, reaches 2^-15.

    Reads up to the first that does.

    Args:
        path: File.
        sample_rate: Hz at which it is heard; None for the file's.

    Raises:
        InputError: As in `blocks`.
    """
    with _opened(path) as file:
        return all(np.abs(part).max(initial=0) < SILENCE for part in _heard(file, sample_rate))


def resampled_length(frames: int, rate: int, sample_rate: int) -> int:
    """How many samples soxr makes of `frames` samples; NumPy arrays work as well."""
    return (2 * frames * sample_rate + rate) // (2 * rate)


def read_segment(
    path,
    start: int,
    length: int,
    margins: tuple[int, int] = (0, 0),
    sample_rate: int | None = None,
    stereo: str = "mix",
    frames: int | None = None,
) -> np.ndarray:
    """A segment of a file with what lies around it, as the whole file padded would have it.

    The utterance is the whole file, mixed to mono, resampled, and if it is shorter than `length`
    (then `start` is 0), extended by zeros. Beyond its two ends it is reflected, just as
    `MelSpectrogram` does it. So the mel of the result with `padding="valid"` is a slice of the
    utterance's mel. Only what is needed is read.

    Args:
        path: File.
        start, length: Samples at `sample_rate`.
        margins: Samples before and after it, such as `AudioConfig.margins`.
        sample_rate: Hz of the result; None for the file's.
        stereo: "mix" or "refuse".
        frames: Of the file, as `info` tells; None asks, which decodes compressed files wholly.

    Returns:
        (margins[0] + length + margins[1],), float32.

    Raises:
        InputError: As in `read`.
    """
    with _opened(path, frames) as file:
        rate = sample_rate or file.samplerate
        found = resampled_length(file.length, file.samplerate, rate)
        if start > 0 and start + length > found:
            raise InputError(f"{path}: ends at sample {found}, before {start + length}")
        total = max(found, length)
        begin, end = start - margins[0], start + length + margins[1]
        if begin >= 0 and end <= found:
            return _read_at_rate(file, begin, end, rate, stereo)
        positions = _reflected(np.arange(begin, end), total)
        low, high = int(positions.min()), int(positions.max()) + 1
        stretch = np.zeros(high - low, np.float32)
        if low < found:
            samples = _read_at_rate(file, low, min(high, found), rate, stereo)
            stretch[: len(samples)] = samples
        return stretch[positions - low]


def write(path, waveform, sample_rate: int, subtype: str = "PCM_16") -> None:
    """Writes mono audio; the extension (.wav, .flac) says the format.

    The file is there when it is whole; a link of its name is not followed.

    Args:
        path: File; its folder must exist.
        waveform: (samples,), clipped to [-1, 1].
        sample_rate: Hz.
        subtype: "PCM_16", "PCM_24", or for WAV "FLOAT".

    Raises:
        InputError: The file can't be written, or not with this subtype.
    """
    kind = os.path.splitext(path)[1][1:].upper()
    try:
        with replacing(path, "r+b") as file:
            clipped, where = np.clip(waveform, -1, 1), file.fileno()
            soundfile.write(where, clipped, sample_rate, subtype, format=kind, closefd=False)
    except (OSError, soundfile.SoundFileError, ValueError, TypeError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "not all of it"
        raise InputError(f"{path}: can't be written ({reason})") from error


class _Sound(soundfile.SoundFile):
    """An open file, read on and on.

    Attributes:
        path: Its name.
        descriptor: Of the file itself.
        position: The sample that is read next.
    """

    def __init__(self, source, path, descriptor):
        self.path = path
        self.descriptor = descriptor
        self.position = 0
        self._source = source
        with silenced():
            super().__init__(source, closefd=False)

    def seekable(self):
        """No: or soundfile would seek after each read, from where MP3s don't go on the same."""
        return False

    @property
    def is_counted(self) -> bool:
        """Whether only decoding tells how long the file is."""
        return self.subtype in (*_MPEG, "VORBIS", "OPUS") or self.frames == _UNKNOWN

    @functools.cached_property
    def length(self) -> int:
        """Samples per channel."""
        return sum(map(len, blocks(self.path))) if self.is_counted else self.frames

    def go_to(self, position: int) -> None:
        """Makes this sample the next."""
        try:
            with silenced():
                self.position = self.seek(position)
        except soundfile.SoundFileError as error:
            where = f"can't be read from sample {position} on"
            raise InputError(f"{self.path}: {where} ({_reason(error)})") from error
        if self.position != position:
            raise InputError(f"{self.path}: can't be read from sample {position} on")

    def fill(self, samples: np.ndarray) -> int:
        """Reads on into an array, and says how many samples (per channel) there still were."""
        got, step = 0, len(samples)
        is_mpeg = self.subtype in _MPEG
        try:
            with silenced() if is_mpeg else contextlib.nullcontext():
                while got < len(samples):
                    if is_mpeg:  # what is read in one go with the end, may be lost
                        step = _STEP - self.position % _STEP
                    more = len(self.read(out=samples[got : got + step]))
                    if not more:
                        break
                    got += more
                    self.position += more
        except soundfile.SoundFileError as error:
            if not getattr(self._source, "is_exhausted", False):
                raise InputError(
                    f"{self.path}: can't be read to its end ({_reason(error)})"
                ) from error
        return got


class _Stretched:
    """The bytes of an MP3, of which there seem to be 32 times as many.

    Without a Xing header libmpg123 takes the bytes by those of the first frame for the length, and
    libsndfile reads no further. If the first frame is a large one, it would lose what comes later.

    Attributes:
        is_exhausted: Whether more was asked for than there is. What libmpg123 then calls an error
            is the end.
    """

    def __init__(self, descriptor, first=0):
        self._file = io.BufferedReader(io.FileIO(descriptor, closefd=False))
        self._first = first
        self.seek(0)

    def seek(self, offset, whence=os.SEEK_SET):
        self.is_exhausted = False
        self._at_end = whence == os.SEEK_END and offset == 0
        self._file.seek(offset + (self._first if whence == os.SEEK_SET else 0), whence)

    def tell(self):
        return (self._file.tell() - self._first) * (32 if self._at_end else 1)

    def readinto(self, buffer):
        try:
            got = self._file.readinto(buffer)
        except OSError:  # nobody catches what comes out of here
            return 0
        self.is_exhausted = got < len(buffer)
        return got


@contextlib.contextmanager
def _opened(path, frames=None):
    """A `_Sound`; `frames` is its length, if that is known."""
    descriptor = open_regular(path)
    try:
        with contextlib.closing(_sound(descriptor, path, frames)) as file:
            _check_header(file)
            if frames is not None:
                file.length = int(frames)
            yield file
    finally:
        os.close(descriptor)


def _sound(descriptor, path, frames):
    try:
        file = _Sound(descriptor, path, descriptor)
        if file.subtype in _MPEG and (frames is None or frames > file.frames):
            file.close()
            file = _Sound(_Stretched(descriptor), path, descriptor)
        return file
    except (OSError, soundfile.SoundFileError, TypeError) as error:
        for first in _syncs(descriptor, path):
            with contextlib.suppress(soundfile.SoundFileError):
                return _Sound(_Stretched(descriptor, first), path, descriptor)
        raise InputError(f"{path}: can't be read as audio ({_reason(error)})") from error


def _syncs(descriptor, path):
    """Where the frames of an MP3 may begin that has something else before the first."""
    if os.fsencode(path).lower().endswith(b".mp3"):
        # Eleven ones, a version and a layer, and a bit rate.
        found = re.finditer(rb"\xff[\xe2-\xff][\x10-\xef]", os.pread(descriptor, 1 << 16, 0))
        yield from (sync.start() for sync in itertools.islice(found, 200))


def _reason(error):
    return (getattr(error, "error_string", None) or str(error)).strip().rstrip(".")


def _check_header(file):
    rate, frames = file.samplerate, file.frames
    if file.channels < 1:
        raise InputError(f"{file.path}: has no channels")
    if frames < 1:
        raise InputError(f"{file.path}: holds no samples")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise InputError(f"{file.path}: can't be read as audio (says it is at {rate} Hz)")
    size = os.fstat(file.descriptor).st_size
    if not file.is_counted and frames > _MOST_PER_BYTE * size:
        raise InputError(f"{file.path}: can't be read as audio (says it has {frames} samples)")


def _empty(file, count):
    return np.empty(count if file.channels == 1 else (count, file.channels), np.float32)


def _blocks(file):
    """All samples of a file that was just opened, checked."""
    samples = _empty(file, max(1, _BLOCK // file.channels))
    while got := file.fill(samples):
        check_samples(samples[:got], file.path)
        yield samples[:got].copy()
    if not file.position:
        raise InputError(f"{file.path}: holds no samples")
    if not file.is_counted and file.position < file.frames:
        raise InputError(f"{file.path}: ends at sample {file.position}, before {file.frames}")


def _heard(file, sample_rate):
    """All samples as mono and at a rate, in parts."""
    parts = map(mixed, _blocks(file))
    if sample_rate in (None, file.samplerate):
        yield from parts
        return
    stream = soxr.ResampleStream(file.samplerate, sample_rate, 1)
    for part in parts:
        yield stream.resample_chunk(part)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _read(file, start, stop, stereo):
    if file.channels > 1 and stereo == "refuse":
        raise InputError(f"{file.path}: has {file.channels} channels, and data.stereo=refuse")
    return mixed(_decoded(file, start, stop))


def _decoded(file, start, stop):
    """Samples [start, stop) of all channels of a file that was just opened."""
    begin = min(start - _LEAD.get(file.subtype, 0), _last_page(file) - 1)
    if begin > 0:
        file.go_to(begin)
    dropped = _empty(file, min(start - file.position, _BLOCK // file.channels))
    while file.position < start and file.fill(dropped[: start - file.position]):
        pass
    samples = _empty(file, stop - start)
    if file.position < start or file.fill(samples) < len(samples):
        raise InputError(f"{file.path}: ends at sample {file.position}, before {stop}")
    return samples


def _last_page(file):
    """The sample from which on libsndfile doesn't find its place in a file.

    In Vorbis' last page it is displaced, since that may end earlier than its blocks.
    """
    if file.subtype != "VORBIS":
        return math.inf
    end = os.fstat(file.descriptor).st_size
    tail = os.pread(file.descriptor, 2 * _PAGE, max(0, end - 2 * _PAGE))
    heads = re.finditer(rb"OggS\0[\0-\7](.{8})(.{4})", tail, re.DOTALL)
    # Each page says the stream's number, and at which sample it ends, or -1.
    pages = [(head[2], struct.unpack("<q", head[1])[0]) for head in heads]
    pages = [ends for stream, ends in pages if stream == pages[-1][0] and ends >= 0]
    if len(pages) < 2:
        return 0
    return file.frames - (pages[-1] - pages[-2])


def _read_at_rate(file, start, stop, sample_rate, stereo):
    """Samples [start, stop) of the file as it is when wholly resampled to `sample_rate`."""
    rate = file.samplerate
    if rate == sample_rate:
        return _read(file, start, stop, stereo)
    # Every `block_in` samples of the file fall together with every `block_out` of the result:
    # beginning there, a stretch has the same phase as the whole.
    divisor = math.gcd(rate, sample_rate)
    block_in, block_out = rate // divisor, sample_rate // divisor
    context = math.ceil(_CONTEXT * max(1, sample_rate / rate))
    blocks = max(0, start - context) // block_out
    first = blocks * block_in
    last = min(file.length, math.ceil((stop + context) * rate / sample_rate))
    samples = soxr.resample(_read(file, first, last, stereo), rate, sample_rate)
    return samples[start - blocks * block_out : stop - blocks * block_out]


def _reflected(positions, total):
    """Positions beyond [0, total) mirrored at the first and the last sample, as often as needed."""
    if total == 1:
        return np.zeros_like(positions)
    positions = positions % (2 * total - 2)
    return np.minimum(positions, 2 * total - 2 - positions)
