"""Mels from files: what an acoustic model made of the same recordings, to fine-tune on."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vocoder.audio.files import resampled_length
from vocoder.audio.mel_files import open_mel, squares_have_bands_first
from vocoder.config import AudioConfig
from vocoder.data.index import Index
from vocoder.data.quarantine import Quarantine
from vocoder.errors import InputError


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
        InputError: The folder is missing, or too many mels are left out.
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
        quarantine.check()
        if not good.any():
            raise InputError(f"data.mels: {folder} has no mel that can be used")
        if not good.all():
            self.index, self.samples = index.subset(good), self.samples[good]

    def path(self, i: int) -> Path:
        """Where the mel of recording `i` is."""
        return (self.folder / self.index.name(i)).with_suffix(".npy")

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
    """The mels of several sets of recordings in one folder; arguments and errors as there."""
    found = [MelFolder(folder, index, audio, quarantine) for index in indexes]
    turned = squares_have_bands_first(o for mels in found for o in mels.orientations)
    for mels in found:
        mels.squares_have_bands_first = bool(turned)
    return found


def _floor(audio):
    return math.log(audio.floor) / _unit(audio)


def _unit(audio):
    """What the logarithm of the mels is divided by."""
    return 1.0 if audio.log == "natural" else math.log(10)


def difference(given: np.ndarray, own: np.ndarray, audio: AudioConfig) -> str | None:
    """What mels look like that are not of the scale of the recordings' own.

    A line is laid through the bands in which there is sound: a logarithm of another base has
    another slope, integers another offset.

    Args:
        given, own: (frames, n_mels), of the same frames.
        audio: Settings of `own`.

    Returns:
        A phrase to follow "as if"; None if nothing is peculiar, or hardly anything to be heard.
    """
    floor, unit = _floor(audio), _unit(audio)
    loud = own > floor + 2 / unit
    if loud.sum() < 100:
        return None
    x, y = own[loud].astype(np.float64), given[loud].astype(np.float64)
    if y.std() < 1e-6 or np.corrcoef(x, y)[0, 1] < 0.6:
        return "of other recordings, or of other bands (audio.fmin, audio.fmax)"
    slope = float(np.polyfit(x, y, 1)[0])
    known = {
        "in decibels": 20 / math.log(10),
        "of powers (audio.power)": 2.0,
        "natural logarithms (audio.log=natural)": 1.0,
        "log10 (audio.log=log10)": 1 / math.log(10),
    }
    for name, factor in known.items():
        times = slope / unit / factor
        own_scale = abs(factor * unit - 1) < 1e-9
        if own_scale and 0.8 < times < 1.25:
            break
        if not own_scale and 0.93 < times < 1.07:
            return f"{name}: {slope:.3g} times as steep"
    else:
        low, high = float(given.min()), float(given.max())
        for least, most in ((0, 1), (-1, 1), (-4, 4)):
            if least - 0.01 <= low and high <= most + 0.01:
                return f"scaled to [{least}, {most}]"
        return f"scaled: {slope:.3g} times as steep"
    offset = float(np.mean(y - x)) * unit
    if abs(offset - math.log(32768)) < 1:
        return "of 16-bit integers: ln 32768 higher"
    if abs(offset) > 1.5:
        return f"{abs(offset / unit):.3g} {'higher' if offset > 0 else 'lower'}"
    quiet = own <= floor + 0.1 / unit
    if quiet.sum() > 50:
        below = (floor - float(np.median(given[quiet]))) * unit
        if below > 1:
            return f"with a smaller audio.floor, about {audio.floor * math.exp(-below):.0e}"
    return None
