"""Mels from files: what an acoustic model made of the same recordings, to fine-tune on."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vocoder.audio.files import open_mel, resampled_length
from vocoder.config import AudioConfig
from vocoder.data.index import Index
from vocoder.errors import InputError


class MelFolder:
    """The `.npy` mels of some recordings, laid out as these are.

    The header of every file is looked at here, so that what is wrong shows before training.

    Args:
        folder: `speaker/001.npy` belongs to `speaker/001.wav`.
        index: The recordings.
        audio: Settings of the mel.

    Attributes:
        samples: (files,), int64, how much of each recording has both sound and mel, in samples at
            `audio.sample_rate`.

    Raises:
        InputError: The folder or a mel is missing, or a mel has another number of bands, or
            another length than the audio by more than a frame.
    """

    def __init__(self, folder: Path, index: Index, audio: AudioConfig):
        if not folder.is_dir():
            raise InputError(f"data.mels: {folder} is not a folder")
        self.folder = folder
        self.index = index
        self.audio = audio
        self.samples = resampled_length(index.frames, index.sample_rate, audio.sample_rate)
        turned = np.zeros(len(index), np.int8)

        def check(i):
            first, second = self._open(i).shape
            frames = second if first == audio.n_mels else first
            expected = int(self.samples[i]) // audio.hop_length
            if abs(frames - expected) > 1:
                raise InputError(
                    f"data.mels: {self.path(i)} has {frames} frames, but {index.path(i)} has "
                    f"{expected} (audio.hop_length={audio.hop_length}); one more or less would do"
                )
            if frames < expected:
                self.samples[i] = frames * audio.hop_length
            if first != second:
                turned[i] = 1 if first == audio.n_mels else -1

        with (
            ThreadPoolExecutor(8) as pool,
            tqdm(total=len(index), desc="checking mels", unit="file", disable=None) as bar,
        ):
            for start in range(0, len(index), 1024):
                for _ in pool.map(check, range(start, min(start + 1024, len(index)))):
                    bar.update()
        # A square array can be read both ways: as most others of the folder.
        self._squares_are_turned = (turned > 0).sum() > (turned < 0).sum()

    def path(self, i: int) -> Path:
        """Where the mel of recording `i` is."""
        return (self.folder / self.index.name(i)).with_suffix(".npy")

    def read(self, i: int, start: int, count: int) -> np.ndarray:
        """Frames [start, start + count) of recording `i`, (count, n_mels); silence after it."""
        mel = self._open(i)
        square = mel.shape[0] == mel.shape[1]
        if self._squares_are_turned if square else mel.shape[0] == self.audio.n_mels:
            mel = mel.T
        part = np.asarray(mel[start : start + count], np.float32)
        logarithm = math.log if self.audio.log == "natural" else math.log10
        silence = np.full((count - len(part), self.audio.n_mels), logarithm(self.audio.floor))
        return np.concatenate([part, silence.astype(np.float32)])

    def _open(self, i):
        """Maps a mel into memory, as it lies."""
        try:
            return open_mel(self.path(i), self.audio.n_mels)
        except InputError as error:
            raise InputError(f"data.mels: {error}") from error
