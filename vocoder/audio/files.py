"""Audio files: what they hold, stretches of them as float32 mono, and writing.

Formats are libsndfile's: WAV, FLAC, OGG, MP3, AIFF and more.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from vocoder.errors import InputError

# Extensions of what libsndfile reads, also where they are not the name of the format. RAW has no
# header, and .htk files hold features as a rule.
EXTENSIONS = frozenset(
    f".{name.lower()}" for name in soundfile.available_formats().keys() - {"RAW", "HTK"}
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


class AudioInfo(NamedTuple):
    """Samples per channel, Hz, and channels of a file."""

    frames: int
    sample_rate: int
    channels: int


def info(path) -> AudioInfo:
    """What a file's header says.

    Raises:
        InputError: The file isn't there, can't be read as audio, holds no samples, or says what
            can't be: a rate outside 1 kHz to 1 MHz, more samples than fit in its bytes.
    """
    with _opened(path) as file:
        found = AudioInfo(file.frames, file.samplerate, file.channels)
    if not _RATES[0] <= found.sample_rate <= _RATES[1]:
        raise InputError(f"{path}: can't be read as audio (says it is at {found.sample_rate} Hz)")
    if found.frames > _MOST_PER_BYTE * os.path.getsize(path):
        raise InputError(f"{path}: can't be read as audio (says it has {found.frames} samples)")
    return found


def read(path, start: int = 0, frames: int | None = None, stereo: str = "mix") -> np.ndarray:
    """Samples of a file at its own rate, as mono.

    Args:
        path: File.
        start: First sample; it is sought, not read up to.
        frames: How many; None for all until the end.
        stereo: "mix" (mean of the channels) or "refuse".

    Returns:
        (samples,), float32.

    Raises:
        InputError: The file can't be read, is empty, ends early, or has several channels that
            are refused.
    """
    with _opened(path) as file:
        stop = file.frames if frames is None else start + frames
        return _read(file, path, start, stop, stereo)


def blocks(path) -> Iterator[np.ndarray]:
    """The whole of a file at its own rate, in order.

    Yields:
        (samples,) or (samples, channels), float32, 2^18 values at most.

    Raises:
        InputError: As in `read`, and for samples that `check_samples` refuses.
    """
    with _opened(path) as file:
        step = max(1, _BLOCK // file.channels)
        for start in range(0, file.frames, step):
            samples = _decoded(file, path, start, min(file.frames, start + step))
            check_samples(samples, path)
            yield samples


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


def is_silent(path) -> bool:
    """Whether no sample of the file reaches 2^-15; reads up to the first that does.

    Raises:
        InputError: As in `blocks`.
    """
    return all(float(np.abs(samples).max()) < SILENCE for samples in blocks(path))


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

    Returns:
        (margins[0] + length + margins[1],), float32.

    Raises:
        InputError: As in `read`.
    """
    with _opened(path) as file:
        rate = sample_rate or file.samplerate
        frames = resampled_length(file.frames, file.samplerate, rate)
        if start > 0 and start + length > frames:
            raise InputError(f"{path}: ends at sample {frames}, before {start + length}")
        total = max(frames, length)
        begin, end = start - margins[0], start + length + margins[1]
        if begin >= 0 and end <= frames:
            return _read_at_rate(file, path, begin, end, rate, stereo)
        positions = _reflected(np.arange(begin, end), total)
        low, high = int(positions.min()), int(positions.max()) + 1
        stretch = np.zeros(high - low, np.float32)
        if low < frames:
            samples = _read_at_rate(file, path, low, min(high, frames), rate, stereo)
            stretch[: len(samples)] = samples
        return stretch[positions - low]


def write(path, waveform, sample_rate: int, subtype: str = "PCM_16") -> None:
    """Writes mono audio; the extension (.wav, .flac) says the format.

    Args:
        path: File; its folder must exist.
        waveform: (samples,), clipped to [-1, 1].
        sample_rate: Hz.
        subtype: "PCM_16", "PCM_24", or for WAV "FLOAT".

    Raises:
        InputError: The file can't be written, or not with this subtype.
    """
    try:
        soundfile.write(path, np.clip(waveform, -1, 1), sample_rate, subtype)
    except (OSError, soundfile.SoundFileError, ValueError, TypeError) as error:
        raise InputError(f"{path}: can't be written ({error})") from error


@contextlib.contextmanager
def _opened(path):
    try:
        # As bytes, because names need not be UTF-8, which soundfile makes of strings. libsndfile
        # takes 1,024 bytes at most; what is longer, Python opens (and closes with the object).
        name = path if os.name == "nt" else os.fsencode(path)
        file = soundfile.SoundFile(open(path, "rb") if len(os.fsencode(path)) > 1000 else name)  # noqa: SIM115
    except (OSError, soundfile.SoundFileError, TypeError) as error:
        if not os.path.exists(path):
            raise InputError(f"{path}: no such file") from error
        reason = getattr(error, "error_string", None) or str(error)
        raise InputError(f"{path}: can't be read as audio ({reason.rstrip('.')})") from error
    with file:
        if file.channels < 1:
            raise InputError(f"{path}: has no channels")
        if file.frames < 1:
            raise InputError(f"{path}: holds no samples")
        yield file


def _read(file, path, start, stop, stereo):
    if file.channels > 1 and stereo == "refuse":
        raise InputError(f"{path}: has {file.channels} channels, and data.stereo=refuse")
    samples = _decoded(file, path, start, stop)
    return samples if file.channels == 1 else samples.mean(axis=1)


def _decoded(file, path, start, stop):
    """Samples [start, stop) of all channels."""
    shape = (stop - start,) if file.channels == 1 else (stop - start, file.channels)
    samples = np.empty(shape, np.float32)
    try:
        file.seek(start)
        got = len(file.read(out=samples))
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise InputError(f"{path}: can't be read from sample {start} on ({reason})") from error
    if got < len(samples):
        raise InputError(f"{path}: ends at sample {start + got}, before {stop}")
    return samples


def _read_at_rate(file, path, start, stop, sample_rate, stereo):
    """Samples [start, stop) of the file as it is when wholly resampled to `sample_rate`."""
    rate = file.samplerate
    if rate == sample_rate:
        return _read(file, path, start, stop, stereo)
    # Every `block_in` samples of the file fall together with every `block_out` of the result:
    # beginning there, a stretch has the same phase as the whole.
    divisor = math.gcd(rate, sample_rate)
    block_in, block_out = rate // divisor, sample_rate // divisor
    context = math.ceil(_CONTEXT * max(1, sample_rate / rate))
    blocks = max(0, start - context) // block_out
    first = blocks * block_in
    last = min(file.frames, math.ceil((stop + context) * rate / sample_rate))
    samples = soxr.resample(_read(file, path, first, last, stereo), rate, sample_rate)
    return samples[start - blocks * block_out : stop - blocks * block_out]


def _reflected(positions, total):
    """Positions beyond [0, total) mirrored at the first and the last sample, as often as needed."""
    if total == 1:
        return np.zeros_like(positions)
    positions = positions % (2 * total - 2)
    return np.minimum(positions, 2 * total - 2 - positions)
