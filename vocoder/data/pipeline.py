"""Segments to batches of (features, waveform), by tf.data."""

import atexit
import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from vocoder.audio import MelSpectrogram
from vocoder.audio.settings import AudioConfig
from vocoder.config import DataConfig, nearest_multiple
from vocoder.data.reader import SegmentReader
from vocoder.errors import InputError, printable

PREFETCH = 8  # batches that wait to be used


class AudioPipeline:
    """The training and validation batches of a corpus.

    Args:
        data, audio, seed, quarantine: As in `SegmentReader`.

    Attributes:
        reader: What reads.

    Raises:
        InputError: As `SegmentReader`.
    """

    def __init__(
        self, data: DataConfig, audio: AudioConfig, seed: int, quarantine: Path | None = None
    ):
        self.data = data
        self.audio = audio
        self.reader = SegmentReader(data, audio, seed, quarantine)
        self._mel = MelSpectrogram(**(dataclasses.asdict(audio) | {"padding": "valid"}))

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
        size = batch_size // of

        def read(number):
            step, share = _place(number, shares)
            return self.reader.train((start_step + step) * batch_size + share * size, size)

        return self._batches(tf.data.Dataset.counter(), read, size)

    def files_of(self, step: int) -> list[str]:
        """Relative paths of the files that the batch of a step is drawn from."""
        return self.reader.names(step * self.data.batch_size, self.data.batch_size)

    @property
    def validation_steps(self) -> int:
        """How many batches there are to validate on."""
        return -(-self.reader.validation_count // self.data.batch_size)

    def validation(self, shares: Sequence[int] = (0,), of: int = 1) -> tf.data.Dataset:
        """Batches of the segments that validate, of about equal size.

        Args:
            shares, of: Which of the `of` nearly equal parts of each batch to give, one after the
                other.

        Raises:
            InputError: There are too few segments for so many parts.
        """
        count, steps = self.reader.validation_count, self.validation_steps
        if count // steps < of:
            raise InputError(
                f"data.validation_segments: {count} segments in {steps} batches can't be shared by "
                f"{of} devices; more segments would do (data.validation_fraction), or fewer devices"
            )
        # Part j of n of a range begins at j / n of it, so no part is empty.
        bounds = np.arange(steps * of + 1) * count // (steps * of)

        def read(number):
            step, share = _place(number, shares)
            begin, end = map(int, bounds[step * of + share :][:2])
            return self.reader.validate(begin, end - begin)

        return self._batches(tf.data.Dataset.range(steps * len(shares)), read, None)

    def utterances(self, count: int) -> list[tuple[str, dict[str, np.ndarray], np.ndarray]]:
        """Beginnings of files held out, to synthesise and listen to.

        Returns:
            [(relative path, {"mel": (frames, n_mels)}, waveform (frames * hop_length,)), ...]
        """
        left, right = self.reader.margins
        found = []
        for name, stretch, mel in self.reader.utterances(count):
            if mel is None:
                mel = np.asarray(self._mel(stretch[None]))[0]
            found.append((name, {"mel": mel}, stretch[left : len(stretch) - right]))
        return found

    def _batches(self, numbers, read, batch_size):
        (left, right), length = self.reader.margins, self.data.segment_length
        frames = length // self.audio.hop_length
        read = _calls.counted(read)

        def batch(number):
            # One call of Python a batch; libsndfile reads without Python's lock.
            stretch, mel = tf.numpy_function(read, [number], (tf.float32, tf.float32))
            stretch.set_shape((batch_size, left + length + right))
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
