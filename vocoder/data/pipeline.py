"""Recordings to batches of (features, waveform), by tf.data."""

import atexit
import contextlib
import dataclasses
import logging
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vocoder.audio import MelSpectrogram, files
from vocoder.audio.settings import AudioConfig
from vocoder.config import DataConfig, nearest_multiple
from vocoder.data.index import Index, load_corpus
from vocoder.data.mels import MelFolder, mel_folders, peculiarity
from vocoder.data.quarantine import Quarantine
from vocoder.data.segments import Segments
from vocoder.errors import InputError, printable
from vocoder.paths import user_path

LONGEST_UTTERANCE = 10  # seconds, of those that are listened to
PREFETCH = 8  # batches that wait to be used
ATTEMPTS = 100  # draws until a segment can be read

log = logging.getLogger("vocoder")


class AudioPipeline:
    """The training and validation batches of a corpus.

    Args:
        data: Where the recordings are and how segments are drawn.
        audio: Sample rate and mel.
        seed: Of which segment comes at which step.
        quarantine: CSV file that gets the bad files; None for the log alone.

    A segment that can't be read is drawn again, from (seed, step, row, attempt). Whether it can is
    asked of the file each time, for just this segment: it decodes, its samples are numbers, and it
    isn't silent in a file that is silent throughout. What this process has seen before plays no
    part, so a resumed run replaces the same segments by the same ones, as long as the files stay
    as they are.

    Attributes:
        training, held_out: `Side`, the files that train and those that validate.

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
        rate = None if data.resample else audio.sample_rate
        sides = load_corpus(data, rate, self.quarantine)
        for index in sides:
            _check_channels(index, data)
        mels = [None, None]
        if data.mels:
            folder = user_path(data.mels)
            mels = mel_folders(folder, sides, audio, self.quarantine)
        self.training, self.held_out = (
            Side(*pair, audio) for pair in zip(sides, mels, strict=True)
        )
        self.segments = Segments(
            self.training.samples,
            data.segment_length,
            audio.hop_length,
            seed,
            tuple(data.gain_db) if data.gain_db else None,
        )
        self._held_out_segments = Segments(
            self.held_out.samples, data.segment_length, audio.hop_length, seed
        )
        self._silent = {}  # path: whether the whole file is, asked once
        self._margins = (0, 0) if data.mels else audio.margins
        self._mel = MelSpectrogram(**(dataclasses.asdict(audio) | {"padding": "valid"}))
        found = data.mels and peculiarity(self.training.mels, data.stereo)
        if found:
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

    def train(
        self, start_step: int = 0, shares: Sequence[int] = (0,), of: int = 1
    ) -> tf.data.Dataset:
        """Endless batches; that of a step is the same whenever and wherever it is made.

        Args:
            start_step: The first batch is that of this step.
            shares, of: Which of the `of` equal parts of each step's batch to give, one after the
                other.

        Returns:
            Dataset of ({"mel": (batch_size / of, frames, n_mels)}, waveform
            (batch_size / of, segment_length)), float32.

        Raises:
            InputError: The batch can't be shared out evenly.
        """
        batch_size = self.data.batch_size
        if batch_size % of:
            raise InputError(
                f"data.batch_size: {batch_size} can't be shared by {of} devices; "
                f"{nearest_multiple(batch_size, of)} can"
            )

        def load(number):
            step, share = _place(number, shares)
            drawn = self.segments.draw(start_step + step, batch_size, share, of)
            first = (start_step + step) * batch_size + share * (batch_size // of)
            return self._load(self.training, self.segments, first, *drawn)

        return self._batches(tf.data.Dataset.counter(), load, batch_size // of)

    def files_of(self, step: int) -> list[str]:
        """Relative paths of the files that the batch of a step is read from."""
        rows, *_ = self.segments.draw(step, self.data.batch_size)
        return [self.training.index.name(i) for i in rows]

    @property
    def validation_steps(self) -> int:
        """How many batches there are to validate on."""
        return -(-self._validation_count // self.data.batch_size)

    @property
    def _validation_count(self):
        slots = np.maximum(1, self.held_out.samples // self.data.segment_length)
        return min(self.data.validation_segments, int(slots.sum()))

    def validation(self, shares: Sequence[int] = (0,), of: int = 1) -> tf.data.Dataset:
        """Batches of segments spread evenly over the files held out, of about equal size.

        Args:
            shares, of: Which of the `of` nearly equal parts of each batch to give, one after the
                other.

        Raises:
            InputError: There are too few segments for so many parts.
        """
        length = self.data.segment_length
        slots = np.maximum(1, self.held_out.samples // length)  # without overlap
        ends = np.cumsum(slots)
        count, steps = self._validation_count, self.validation_steps
        if count // steps < of:
            raise InputError(
                f"data.validation_segments: {count} segments in {steps} batches can't be shared by "
                f"{of} devices; more segments would do (data.validation_fraction), or fewer devices"
            )
        chosen = np.arange(count) * ends[-1] // count
        rows = np.searchsorted(ends, chosen, side="right")
        starts = (chosen - (ends - slots)[rows]) * length
        gains = np.ones(count, np.float32)
        # Part j of n of a range begins at j / n of it, so no part is empty.
        bounds = np.arange(steps * of + 1) * count // (steps * of)

        def load(number):
            step, share = _place(number, shares)
            part = slice(*bounds[step * of + share :][:2])
            drawn = rows[part], starts[part], gains[part]
            return self._load(self.held_out, self._held_out_segments, part.start, *drawn)

        return self._batches(tf.data.Dataset.range(steps * len(shares)), load, None)

    def utterances(self, count: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Some validation utterances to listen to, the first ten seconds of each.

        They are spread evenly over the sorted files, so that not all are of one speaker. Instead of
        one that can't be read there is none.

        Returns:
            [(relative path, {"mel": (frames, n_mels)}, waveform (frames * hop_length,)), ...]
        """
        side, hop = self.held_out, self.audio.hop_length
        count = min(count, len(side.index))
        found = []
        for i in np.arange(count) * len(side.index) // max(1, count):
            samples = min(int(side.samples[i]), LONGEST_UTTERANCE * self.audio.sample_rate)
            length = max(1, samples // hop) * hop
            try:
                stretch, mel = self._read(side, i, 0, length)
            except _BadFileError as error:
                self.quarantine.add(*error.args)
                continue
            if mel is None:
                mel = np.asarray(self._mel(stretch[None]))[0]
            left = self._margins[0]
            found.append((side.index.name(i), {"mel": mel}, stretch[left : left + length]))
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
            stretch = files.read_segment(path, start, length, self._margins, rate, stereo, frames)
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

    def _load(self, side, segments, position, rows, starts, gains):
        """Segments with margins, and their mels if these come from files (else no frames)."""
        length = self.data.segment_length
        frames = length // self.audio.hop_length if side.mels else 0
        stretches = np.empty((len(rows), length + sum(self._margins)), np.float32)
        mels = np.empty((len(rows), frames, self.audio.n_mels), np.float32)
        for j, (i, start) in enumerate(zip(rows, starts, strict=True)):
            stretches[j], mel = self._read_or_redraw(
                side, segments, position + j, int(i), int(start)
            )
            if mel is not None:
                mels[j] = mel
            if gains[j] != 1:
                # What a gain would lift beyond full scale is lifted as far as that.
                peak = np.abs(stretches[j]).max()
                stretches[j] *= min(gains[j], max(1, 1 / max(peak, 1e-9)))
        return stretches, mels

    def _batches(self, numbers, load, batch_size):
        left, length = self._margins[0], self.data.segment_length
        frames = length // self.audio.hop_length
        read = _calls.counted(load)

        def batch(number):
            # One call of Python a batch; libsndfile reads without Python's lock.
            stretch, mel = tf.numpy_function(read, [number], (tf.float32, tf.float32))
            stretch.set_shape((batch_size, length + sum(self._margins)))
            if not self.data.mels:
                mel = self._mel(stretch)
            mel = tf.ensure_shape(mel, (batch_size, frames, self.audio.n_mels))
            return {"mel": mel}, stretch[:, left : left + length]

        options = tf.data.Options()
        options.deterministic = True
        # Devices get their shares by the arguments; nothing is to be split once more.
        off = tf.data.experimental.AutoShardPolicy.OFF
        options.experimental_distribute.auto_shard_policy = off
        dataset = numbers.map(batch, num_parallel_calls=self.data.threads)
        return dataset.prefetch(PREFETCH).with_options(options)


def _place(number, shares):
    """Step and share of an element, where each step has its shares one after the other."""
    step, i = divmod(int(number), len(shares))
    return step, shares[i]


class _BadFileError(Exception):
    """A recording or mel that can't be used where it was drawn: its path, and a line."""


class Side:
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


class _Calls:
    """Knows whether a thread of TensorFlow is in one of our functions.

    While Python shuts down, such a thread can't get Python's lock any more, and TensorFlow waits
    for it: a process that ended in the middle of an endless dataset would hang (seen with
    TensorFlow 2.21). So the end is put off until the batches read ahead are complete.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.running = 0
        self.ended = 0.0

    def counted(self, function):
        def call(*arguments):
            with self.lock:
                self.running += 1
            try:
                return function(*arguments)
            except InputError as error:  # what TensorFlow passes on must be text
                raise InputError(printable(error)) from error
            finally:
                with self.lock:
                    self.running -= 1
                    self.ended = time.monotonic()

        return call

    def settle(self, quiet: float = 0.2, longest: float = 10.0) -> None:
        """Waits until no call has been running for `quiet` seconds."""
        begin = time.monotonic()
        while time.monotonic() - begin < longest:
            if not self.running and time.monotonic() - self.ended > quiet:
                return
            time.sleep(0.02)


_calls = _Calls()
atexit.register(_calls.settle)


@contextlib.contextmanager
def reading_errors():
    """Turns what TensorFlow makes of an `InputError` in a batch back into that `InputError`."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"InputError: (.*)", error.message)
        if not found:
            raise
        raise InputError(found[1]) from error


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
