"""Segments of recordings, in NumPy alone: which one is at a position, and what is in it."""

import logging
from pathlib import Path

import numpy as np

from vocoder.audio import files
from vocoder.audio.settings import AudioConfig
from vocoder.config import DataConfig, nearest_multiple
from vocoder.data.corpus import load_corpus
from vocoder.data.index import Index
from vocoder.data.mels import MelFolder, mel_folders, peculiarity
from vocoder.data.quarantine import Quarantine
from vocoder.data.segments import Segments
from vocoder.errors import InputError
from vocoder.paths import user_path

LONGEST_UTTERANCE = 10  # seconds, of those that are listened to
ATTEMPTS = 100  # draws until a segment can be read

log = logging.getLogger("vocoder")


class SegmentReader:
    """Reads the segments of a corpus: for training by position, and those that validate.

    What is at a position is a pure function of (seed, position). A segment that can't be read is
    drawn again, from (seed, position, attempt). Whether it can is asked of the file each time, for
    just this segment: it decodes, its samples are numbers, and it isn't silent in a file that is
    silent throughout. What this process has seen before plays no part, so a resumed run replaces
    the same segments by the same ones, as long as the files stay as they are.

    A segment comes with the `margins` that its mel needs, unless mels are read from disk too.

    Args:
        data: Where the recordings are and how segments are drawn.
        audio: Sample rate and mel.
        seed: Of which segment is at which position.
        quarantine: CSV file that gets the bad files; None for the log alone.

    Attributes:
        training, held_out: `FileSet`, the files that train and those that validate.
        margins: Samples (left, right) beside a segment.
        validation_count: How many segments validate.

    Raises:
        InputError: Names the key, and the file if one is at fault: a setting is out of range, a
            folder or list is missing, a file has a rate, channels or a mel that aren't wanted.
    """

    def __init__(
        self, data: DataConfig, audio: AudioConfig, seed: int, quarantine: Path | None = None
    ):
        _check(data, audio)
        self.data = data
        self.audio = audio
        self.quarantine = Quarantine(quarantine, data.max_bad_fraction)
        self.margins = (0, 0) if data.mels else audio.margins
        rate = None if data.resample else audio.sample_rate
        indexes = load_corpus(data, rate, self.quarantine)
        for index in indexes:
            _check_channels(index, data)
        mels = (None, None)
        if data.mels:
            mels = mel_folders(user_path(data.mels), indexes, audio, self.quarantine)
        self.training, self.held_out = (
            FileSet(*pair, audio) for pair in zip(indexes, mels, strict=True)
        )
        lengths = data.segment_length, audio.hop_length, seed
        gains = tuple(data.gain_db) if data.gain_db else None
        self._segments = Segments(self.training.samples, *lengths, gains)
        self._held_out_segments = Segments(self.held_out.samples, *lengths)
        self._silent = {}  # path: whether the whole file is, asked once
        slots = np.maximum(1, self.held_out.samples // data.segment_length)  # without overlap
        self.validation_count = min(data.validation_segments, int(slots.sum()))
        self._held_out_ends = np.cumsum(slots)
        if data.mels and (found := peculiarity(self.training.mels, data.stereo)):
            log.warning(
                "data.mels: beside what `audio` makes of the recordings, the mels look as if %s; "
                "what is trained on them needs the same",
                found,
            )

    @property
    def description(self) -> str:
        """How much there is, on a line."""
        train, held_out = self.training, self.held_out
        return (
            f"{len(train.index)} files ({train.duration}) train, "
            f"{len(held_out.index)} ({held_out.duration}) validate"
        )

    def train(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The training segments at some positions.

        With several corpora, a position would pick one of them first, and count in its own order.

        Args:
            first, count: Positions, from 0 on without end.

        Returns:
            Samples with margins (count, left + segment_length + right), and mels
            (count, frames, n_mels), float32; if these aren't read from disk, of no frames.
        """
        return self._load(self.training, self._segments, first, self._segments.draw(first, count))

    def names(self, first: int, count: int) -> list[str]:
        """Relative paths of the files that training segments are drawn from."""
        rows, *_ = self._segments.draw(first, count)
        return [self.training.index.name(i) for i in rows]

    def validate(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Likewise of those that validate, spread evenly over the files held out.

        Args:
            first, count: Of `validation_count`.
        """
        length, ends = self.data.segment_length, self._held_out_ends
        chosen = np.arange(first, first + count) * ends[-1] // self.validation_count
        rows = np.searchsorted(ends, chosen, side="right")
        starts = (chosen - np.where(rows > 0, ends[rows - 1], 0)) * length
        drawn = rows, starts, np.ones(count, np.float32)
        return self._load(self.held_out, self._held_out_segments, first, drawn)

    def utterances(self, count: int) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
        """Beginnings of files held out, whole hops of them, spread evenly.

        Files that can't be read are left out, and so are those beyond `LONGEST_UTTERANCE`.

        Returns:
            [(relative path, samples with margins, mel (frames, n_mels) or None), ...]
        """
        files_, hop = self.held_out, self.audio.hop_length
        count = min(count, len(files_.index))
        found = []
        for i in np.arange(count) * len(files_.index) // max(1, count):
            samples = min(int(files_.samples[i]), LONGEST_UTTERANCE * self.audio.sample_rate)
            try:
                read = self._read(files_, i, 0, max(1, samples // hop) * hop)
            except _BadFileError as error:
                self.quarantine.add(*error.args)
                continue
            found.append((files_.index.name(i), *read))
        return found

    def _mel_from_file(self, side, i, start, length):
        if side.mels is None:
            return None
        hop = self.audio.hop_length
        return side.mels.read(i, start // hop, length // hop)

    def _read(self, side, i, start, length):
        """A segment with the margins of its mel, or without, and its mel from a file.

        Raises:
            _BadFileError: The recording or its mel is at fault.
        """
        path = side.index.path(i)
        rate, stereo = self.audio.sample_rate, self.data.stereo
        try:
            frames = side.index.frames[i]
            stretch = files.read_segment(path, start, length, self.margins, rate, stereo, frames)
            if files.check_samples(stretch, path) < files.SILENCE:
                if path not in self._silent:
                    self._silent[path] = files.is_silent(path, rate)
                if self._silent[path]:
                    raise InputError(f"{path}: silence throughout")
        except InputError as error:
            raise _BadFileError(path, str(error)) from error
        try:
            return stretch, self._mel_from_file(side, i, start, length)
        except InputError as error:
            raise _BadFileError(side.mels.path(i), str(error)) from error

    def _read_or_redraw(self, side, segments, position, i, start):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._read(side, i, start, self.data.segment_length)
            except _BadFileError as error:
                self.quarantine.add(*error.args)
                i, start = segments.redraw(position, attempt)
        raise InputError(f"data.root: no readable segment in {ATTEMPTS} draws")

    def _load(self, side, segments, first, drawn):
        length = self.data.segment_length
        rows, starts, gains = drawn
        frames = length // self.audio.hop_length if side.mels else 0
        stretches = np.empty((len(rows), length + sum(self.margins)), np.float32)
        mels = np.empty((len(rows), frames, self.audio.n_mels), np.float32)
        for j, (i, start) in enumerate(zip(rows, starts, strict=True)):
            stretches[j], mel = self._read_or_redraw(side, segments, first + j, int(i), int(start))
            if mel is not None:
                mels[j] = mel
            if gains[j] != 1:
                # What a gain would lift beyond full scale is lifted as far as that.
                peak = np.abs(stretches[j]).max()
                stretches[j] *= min(gains[j], max(1, 1 / max(peak, 1e-9)))
        return stretches, mels


class _BadFileError(Exception):
    """A recording or mel that can't be used where it was drawn: its path, and a line."""


class FileSet:
    """The files that train, or those that validate.

    Attributes:
        index: What is known of them.
        mels: Their mels on disk, or None.
        samples: (files,), int64, how long they are at the rate of training.
    """

    def __init__(self, index: Index, mels: MelFolder | None, audio: AudioConfig):
        self.index = mels.index if mels else index
        self.mels = mels
        self.samples = (
            mels.samples
            if mels
            else files.resampled_length(index.frames, index.sample_rate, audio.sample_rate)
        )

    @property
    def duration(self) -> str:
        """h:mm:ss."""
        seconds = round(float((self.index.frames / self.index.sample_rate).sum()))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _check(data, audio):
    length, hop = data.segment_length, audio.hop_length
    if length % hop:
        raise InputError(
            f"data.segment_length: {length} is no multiple of audio.hop_length ({hop}); "
            f"{nearest_multiple(length, hop)} is"
        )
    for key in ("train_list", "validation_list"):
        if getattr(data, key) == "":
            raise InputError(f"data.{key}: missing; give data.{key}=FILE")
    gain = data.gain_db
    if gain is not None:
        if gain[0] > gain[1]:
            raise InputError(f"data.gain_db: must be [lowest, highest] in dB, not {gain}")
        if data.mels:
            raise InputError("data.gain_db: mels from data.mels can't follow a gain; use null")


def _check_channels(index, data):
    several = np.flatnonzero(index.channels > 1)
    if len(several) and data.stereo == "refuse":
        raise InputError(
            f"data.stereo: {len(several)} of {len(index)} files are not mono: "
            f"{index.path(several[0])} has {index.channels[several[0]]} channels; "
            "data.stereo=mix mixes them"
        )
