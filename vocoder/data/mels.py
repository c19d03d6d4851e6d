"""Mels from files: what an acoustic model made of the same recordings, to fine-tune on."""

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vocoder.audio import MelSpectrogram
from vocoder.audio.files import check_samples, read_segment, resampled_length
from vocoder.audio.mel_files import open_mel, squares_have_bands_first
from vocoder.audio.settings import AudioConfig
from vocoder.data.index import Index
from vocoder.data.quarantine import Quarantine
from vocoder.errors import InputError, blamed_on

log = logging.getLogger("vocoder")

COMPARED, COMPARED_FRAMES = 5, 400  # recordings, and frames of each, whose mels are looked at


class MelFolder:
    """The `.npy` mels of some recordings, laid out as these are.

    The header of every file is looked at here, so that what is wrong shows before training: a mel
    that is missing, no mel, of another number of bands, or longer or shorter than its recording by
    more than a frame is left out with its recording.

    Args:
        folder: `speaker/001.npy` belongs to `speaker/001.wav`.
        index: The recordings.
        audio: Settings of the mel.
        quarantine: Gets those that are left out.

    Attributes:
        index: The recordings that have a mel.
        samples: (files,), int64, how much of each recording has both sound and mel, in samples at
            `audio.sample_rate`.
        orientations: `MelFile.bands_first` of the mels that are not square.
        squares_have_bands_first: How the others lie; to be decided for the whole folder.

    Raises:
        InputError: The folder is missing.
    """

    def __init__(self, folder: Path, index: Index, audio: AudioConfig, quarantine: Quarantine):
        if not folder.is_dir():
            raise InputError(f"data.mels: {folder} is not a folder")
        self.folder = folder
        self.index = index
        self.audio = audio
        self.squares_have_bands_first = False
        self.samples = resampled_length(index.frames, index.sample_rate, audio.sample_rate)
        self.orientations = []
        good = np.ones(len(index), bool)

        def check(i):
            try:
                with blamed_on(self.path(i)):
                    mel = open_mel(self.path(i), audio.n_mels)
                expected = int(self.samples[i]) // audio.hop_length
                if abs(mel.frames - expected) > 1:
                    raise InputError(
                        f"{mel.path}: has {mel.frames} frames, but {index.path(i)} has {expected} "
                        f"(audio.hop_length={audio.hop_length}); one more or less would do"
                    )
            except InputError as error:
                good[i] = False
                quarantine.note(self.path(i), str(error))
                return
            if mel.frames < expected:
                self.samples[i] = mel.frames * audio.hop_length
            if not mel.is_square:
                self.orientations.append(mel.bands_first)

        with (
            ThreadPoolExecutor(8) as pool,
            tqdm(total=len(index), desc="checking mels", unit="file", disable=None) as bar,
        ):
            for start in range(0, len(index), 1024):
                for _ in pool.map(check, range(start, min(start + 1024, len(index)))):
                    bar.update()
        if not good.all():
            self.index, self.samples = index.subset(good), self.samples[good]

    def path(self, i: int) -> Path:
        """Where the mel of recording `i` is; the extension may be in capitals."""
        path = (self.folder / self.index.name(i)).with_suffix(".npy")
        capitals = path.with_suffix(".NPY")
        return capitals if os.path.exists(capitals) and not os.path.exists(path) else path

    def read(self, i: int, start: int, count: int) -> np.ndarray:
        """Frames [start, start + count) of recording `i`, (count, n_mels); silence after it.

        Raises:
            InputError: The file is not as it was, or holds what no mel has.
        """
        mel = open_mel(self.path(i), self.audio.n_mels)
        if mel.is_square:
            mel = mel._replace(bands_first=self.squares_have_bands_first)
        part = mel.read(start, count)
        silence = np.full((count - len(part), self.audio.n_mels), _floor(self.audio), np.float32)
        return np.concatenate([part, silence])


def mel_folders(
    folder: Path, indexes: Sequence[Index], audio: AudioConfig, quarantine: Quarantine
) -> list[MelFolder]:
    """The mels of several sets of recordings in one folder; arguments as of `MelFolder`.

    Raises:
        InputError: The folder is missing, too many mels are left out, or all those of a set.
    """
    found = [MelFolder(folder, index, audio, quarantine) for index in indexes]
    quarantine.check()
    if not all(len(mels.index) for mels in found):
        raise InputError(f"data.mels: {folder} has no usable mels for one side of the split")
    others = [bands_first for mels in found for bands_first in mels.orientations]
    turned = squares_have_bands_first(others)
    squares = sum(len(mels.index) for mels in found) - len(others)
    if squares and turned is None:
        log.warning(
            "data.mels: %d of the mels have as many frames as bands, and the others don't tell "
            "which way they lie; taken as (frames, n_mels)",
            squares,
        )
    for mels in found:
        mels.squares_have_bands_first = bool(turned)
    return found


def _floor(audio):
    return math.log(audio.floor) / _unit(audio)


def _unit(audio):
    """What the logarithm of the mels is divided by."""
    return 1.0 if audio.log == "natural" else math.log(10)


def peculiarity(mels: MelFolder, stereo: str) -> str | None:
    """What the mels look like, beside those of a few of the recordings, if not like these.

    Args:
        mels: Mels and recordings.
        stereo: As in `audio.files.read`.

    Returns:
        A phrase to follow "as if"; None if nothing is peculiar, or hardly anything to be heard.
    """
    audio, given, stretches = mels.audio, [], []
    for i in np.unique(np.linspace(0, len(mels.index) - 1, COMPARED).astype(int)):
        frames = min(COMPARED_FRAMES, int(mels.samples[i]) // audio.hop_length)
        length, path = frames * audio.hop_length, mels.index.path(i)
        with contextlib.suppress(InputError):  # which is told when it is drawn
            how = audio.margins, audio.sample_rate, stereo, mels.index.frames[i]
            stretch = read_segment(path, 0, length, *how)
            check_samples(stretch, path)
            given.append(mels.read(i, 0, frames))
            stretches.append(stretch)
    if not given:
        return None
    given, own = np.concatenate(given), _mels_of(stretches, audio)
    found = other_scale(given, own, audio)
    if found is None:
        fitting = settings_that_fit(given, stretches, audio)
        if fitting != audio:
            values = zip(vars(fitting).items(), vars(audio).values(), strict=True)
            changes = (f"audio.{k}={_yaml(v)}" for (k, v), before in values if v != before)
            return f"made with {' '.join(changes)}"
        found = other_level(given, own, audio)
    return found


def _yaml(value):
    return {None: "null", True: "true", False: "false"}.get(value, value)


def _mels_of(stretches, audio):
    layer = MelSpectrogram(**(vars(audio) | {"padding": "valid"}))
    return np.concatenate([np.asarray(layer(stretch[None]))[0] for stretch in stretches])


def other_scale(given: np.ndarray, own: np.ndarray, audio: AudioConfig) -> str | None:
    """What kind of numbers mels are that are no logarithms as the recordings' own.

    Args:
        given, own: (frames, n_mels), of the same frames.
        audio: Settings of `own`.

    Returns:
        A phrase to follow "as if", or None.
    """
    floor, unit = _floor(audio), _unit(audio)
    loud = own > floor + 2 / unit
    if loud.sum() < 100:
        return None
    x, y = own[loud].astype(np.float64) * unit, given[loud].astype(np.float64)
    likeness = _correlation(x, y)
    if _correlation(np.exp(x), y) > max(0.9, likeness):
        return "no logarithms"
    if likeness < 0.6:
        return "of other recordings, or of other bands"
    low, high = float(given.min()), float(given.max())
    if abs(given.mean()) < 0.1 and abs(given.std() - 1) < 0.1:
        return "standardised, to mean 0 and deviation 1"
    for least, most in ((0, 1), (-1, 1), (-4, 4)):
        reaches_both = least - 0.01 <= low < least + 0.2 * (most - least) and high <= most + 0.01
        if reaches_both and own.min() * unit < least - 1:
            return f"scaled to [{least}, {most}]"
    if low >= 0:
        return "no logarithms, or such of more than 1: none is below 0"
    slope = y.std() / x.std()  # of what would be natural logarithms
    known = {
        "in decibels": 20 / math.log(10),
        "natural logarithms": 1.0,
        "log10": 1 / math.log(10),
    }
    for name, factor in known.items():
        times = factor * unit
        if 0.87 < slope / factor < 1.15 and abs(times - 1) > 0.01:
            key = {"natural logarithms": " (audio.log=natural)", "log10": " (audio.log=log10)"}
            size = f"{times:.4g} times larger" if times > 1 else f"{1 / times:.4g} times smaller"
            return f"{name}: {size}{key.get(name, '')}"
    if not 0.55 < slope * unit < 2.5:  # what is in between may be smooth, or powers
        return f"scaled: {slope * unit:.3g} times as steep"
    return None


def _correlation(x, y):
    return np.corrcoef(x, y)[0, 1] if min(x.std(), y.std()) > 1e-6 else 0.0


def settings_that_fit(
    given: np.ndarray, stretches: Sequence[np.ndarray], audio: AudioConfig
) -> AudioConfig:
    """Settings by which the mels of the recordings come much closer to given ones.

    Args:
        given: (frames, n_mels), of all the stretches after one another.
        stretches: Recordings with the margins of `audio`.
        audio: The settings to begin with, which are changed one at a time.
    """

    def error(settings):
        differences = given - _mels_of(stretches, settings)
        return float(np.abs(differences - differences.mean()).mean()) * _unit(audio)

    best, first = audio, error(audio)
    least = first
    while least > 0.2:  # acoustic models are not much nearer
        tried = {}
        for change in _OTHERS:
            with contextlib.suppress(ValueError):  # beyond half the sample rate
                other = dataclasses.replace(best, **change)
                tried[other] = error(other)
        other = min(tried, key=tried.get)
        if tried[other] > 0.95 * least:
            break
        best, least = other, tried[other]
    return best if least < 0.75 * first else audio


# What is common elsewhere.
_OTHERS = [
    *(
        {"fmin": fmin, "fmax": fmax}
        for fmin in (0.0, 20.0, 40.0, 50.0, 80.0, 125.0)
        for fmax in (None, 7600.0, 8000.0)
    ),
    *({"htk": htk} for htk in (False, True)),
    *({"norm": norm} for norm in (None, "slaney")),
    *({"power": power} for power in (1.0, 2.0)),
]


def other_level(given: np.ndarray, own: np.ndarray, audio: AudioConfig) -> str | None:
    """By how much mels are above or below the recordings' own, if by a lot, or reach below them.

    Args and what it returns: as `other_scale`.
    """
    unit, floor = _unit(audio), _floor(audio)
    loud = own > floor + 2 / unit
    offset = float((given - own)[loud].mean()) * unit if loud.any() else 0.0
    if abs(offset - audio.power * math.log(32768)) < 1:
        return "of samples in 16 bits, which are 32768 times larger"
    if abs(offset) > 1.5:
        return f"{abs(offset / unit):.3g} {'higher' if offset > 0 else 'lower'}"
    lowest = float(np.quantile(given, 0.001))
    if lowest < floor - 1 / unit:
        return (
            f"with a smaller audio.floor: they go down to {given.min():.3g}, "
            f"where {audio.floor:g} ends at {floor:.3g}"
        )
    return None
