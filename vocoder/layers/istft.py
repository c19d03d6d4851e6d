"""Heads that make samples of spectra, for networks at a frame rate."""

import math

import keras
from keras import ops

from vocoder.audio.stft import inverse_stft, stft

MOMENTUM = 0.99  # of fast Griffin-Lim, as recommended there and in librosa


@keras.saving.register_keras_serializable("vocoder")
class ISTFT(keras.layers.Layer):
    """Log magnitudes and phases to samples, always in float32.

    The head of iSTFTNet (arXiv:2203.02395) and Vocos (arXiv:2306.00814).
    (batch, frames, n_fft + 2) -> (batch, frames * hop_length). The first n_fft / 2 + 1 channels
    are the logarithm of the magnitude, the others make the phase.

    Args:
        n_fft, hop_length: Samples; `hop_length` divides `n_fft` at least twice, with "center" at
            least three times, as the last hop then has the end of one window alone.
        padding: "same" or "center", as in `vocoder.audio.stft.inverse_stft`.
        phase: "free": in radians, free to wrap as in Vocos. "sine": pi times the sine, after
            iSTFTNet, which takes a sine.
        log_magnitude_limit: Largest log magnitude, against an overflow of the exponential.

    Raises:
        ValueError: "istft_ARGUMENT: reason", as the generators name them.
    """

    def __init__(
        self,
        n_fft,
        hop_length,
        padding="same",
        phase="free",
        log_magnitude_limit=10.0,
        **arguments,
    ):
        arguments["dtype"] = "float32"
        super().__init__(**arguments)
        _check(n_fft, hop_length, padding)
        if phase not in ("free", "sine"):
            raise ValueError(f'istft_phase: must be "free" or "sine", not {phase!r}')
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = padding
        self.phase = phase
        self.log_magnitude_limit = log_magnitude_limit

    @property
    def channels(self):
        """How many the input has."""
        return self.n_fft + 2

    @property
    def reach(self):
        """Frames on each side that a sample depends on."""
        return -(-self.n_fft // (2 * self.hop_length))

    def call(self, x, training=False):
        bins = self.n_fft // 2 + 1
        magnitude = ops.exp(ops.minimum(x[..., :bins], self.log_magnitude_limit))
        phase = x[..., bins:]
        if self.phase == "sine":
            phase = math.pi * ops.sin(phase)
        real, imaginary = magnitude * ops.cos(phase), magnitude * ops.sin(phase)
        return inverse_stft(real, imaginary, self.hop_length, self.padding)

    def get_config(self):
        return super().get_config() | {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "padding": self.padding,
            "phase": self.phase,
            "log_magnitude_limit": self.log_magnitude_limit,
        }


@keras.saving.register_keras_serializable("vocoder")
class GriffinLim(keras.layers.Layer):
    """Log magnitudes to samples, with phases that make the frames fit one another, in float32.

    (batch, frames, n_fft / 2 + 1) -> (batch, frames * hop_length), by fast Griffin-Lim (Perraudin,
    Balazs and Sondergaard 2013) from phases of zero. To the gradient the phases are constants, so
    that a network learns magnitudes which are those of what is heard.

    Args:
        n_fft, hop_length, padding, log_magnitude_limit: As in `ISTFT`.
        iterations: In inference.
        training_iterations: In training.

    Raises:
        ValueError: "istft_ARGUMENT: reason", as the generators name them.
    """

    def __init__(
        self,
        n_fft,
        hop_length,
        padding="same",
        log_magnitude_limit=10.0,
        iterations=32,
        training_iterations=8,
        **arguments,
    ):
        arguments["dtype"] = "float32"
        super().__init__(**arguments)
        _check(n_fft, hop_length, padding)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = padding
        self.log_magnitude_limit = log_magnitude_limit
        self.iterations = iterations
        self.training_iterations = training_iterations

    @property
    def channels(self):
        """How many the input has."""
        return self.n_fft // 2 + 1

    @property
    def reach(self):
        """Frames on each side that a sample depends on."""
        overlapping = self.n_fft // self.hop_length - 1
        iterations = max(self.iterations, self.training_iterations)
        return iterations * overlapping + -(-self.n_fft // (2 * self.hop_length))

    def call(self, x, training=False):
        magnitude = ops.exp(ops.minimum(x, self.log_magnitude_limit))
        iterations = self.training_iterations if training else self.iterations
        cosine, sine = self._phases(ops.stop_gradient(magnitude), iterations)
        real, imaginary = magnitude * cosine, magnitude * sine
        return inverse_stft(real, imaginary, self.hop_length, self.padding)

    def _phases(self, magnitude, iterations):
        """Cosines and sines of the phases."""
        same = (self.n_fft - self.hop_length) // 2
        left = same if self.padding == "same" else self.n_fft // 2
        margins = [[0, 0], [left, self.n_fft - self.hop_length - left]]
        cosine, sine = ops.ones_like(magnitude), ops.zeros_like(magnitude)
        before = None
        for _ in range(iterations):
            wave = inverse_stft(
                magnitude * cosine, magnitude * sine, self.hop_length, self.padding, with_fft=True
            )
            now = stft(
                ops.pad(wave, margins), self.n_fft, self.hop_length, self.n_fft, center=False
            )
            real, imaginary = now
            if before is not None:
                real = real + MOMENTUM * (real - before[0])
                imaginary = imaginary + MOMENTUM * (imaginary - before[1])
            before = now
            size = ops.sqrt(ops.square(real) + ops.square(imaginary) + 1e-10)
            cosine, sine = real / size, imaginary / size
        return ops.stop_gradient(cosine), ops.stop_gradient(sine)

    def get_config(self):
        return super().get_config() | {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "padding": self.padding,
            "log_magnitude_limit": self.log_magnitude_limit,
            "iterations": self.iterations,
            "training_iterations": self.training_iterations,
        }


def _check(n_fft, hop_length, padding):
    if padding not in ("same", "center"):
        raise ValueError(f'istft_padding: must be "same" or "center", not {padding!r}')
    least, times = (2, "twice") if padding == "same" else (3, "three times")
    if hop_length < 1 or n_fft % hop_length or n_fft < least * hop_length or n_fft % 2:
        raise ValueError(
            f"istft_hop_length: {hop_length} must divide istft_n_fft ({n_fft}, even) "
            f"at least {times}"
        )
