"""Heads that make samples of spectra, for networks at a frame rate."""

import math
import reprlib

import keras
from keras import ops

from vocoder.audio.stft import inverse_stft, stft
from vocoder.config import check_whole, either, frame_margins

MOMENTUM = 0.99  # of fast Griffin-Lim, as recommended there and in librosa


MOST_N_FFT = 2**13  # whose inverse DFT as a matrix has half a gigabyte


def check_phase(phase) -> None:
    """Raises `ValueError("istft_phase: reason")` for an unknown one."""
    if phase not in ("free", "sine"):
        raise ValueError(f'istft_phase: must be "free" or "sine", not {reprlib.repr(phase)}')


def check_istft(n_fft: int, hop_length: int, padding: str = "same", besides: str = "") -> None:
    """Raises `ValueError("istft_ARGUMENT: reason")` unless a head can be made of these.

    Args:
        n_fft, hop_length, padding: As in `SpectralHead`.
        besides: What else would have to be changed with `n_fft`, for the message.
    """
    check_whole("istft_n_fft", n_fft, 2, MOST_N_FFT)
    check_whole("istft_hop_length", hop_length, 1, MOST_N_FFT)
    if padding not in ("same", "center"):
        raise ValueError(f'istft_padding: must be "same" or "center", not {padding!r}')
    least, times = (2, "twice") if padding == "same" else (3, "three times")
    step = hop_length * (1 + hop_length % 2)  # even multiples
    if n_fft % step or n_fft < least * hop_length:
        below = n_fft // step * step
        smallest = -(-least * hop_length // step) * step
        nearest = either(below, max(below + step, smallest), least=smallest)
        raise ValueError(
            f"istft_hop_length: {hop_length} must divide istft_n_fft ({n_fft}, even) "
            f"at least {times}; istft_n_fft={nearest}{besides} would do"
        )


class SpectralHead(keras.layers.Layer):
    """Log magnitudes, and what else `channels` hold, to samples, always in float32.

    (batch, frames, channels) -> (batch, frames * hop_length). The first n_fft / 2 + 1 channels are
    the logarithm of the magnitude.

    Args:
        n_fft, hop_length: Samples; `hop_length` divides `n_fft` at least twice, with "center" at
            least three times, as the last hop then has the end of one window alone.
        padding: "same" or "center", as in `vocoder.audio.stft.inverse_stft`.
        log_magnitude_limit: Largest log magnitude, against an overflow of the exponential.

    Attributes:
        channels: How many the input has.

    Raises:
        ValueError: "istft_ARGUMENT: reason", as the generators name them.
    """

    def __init__(self, n_fft, hop_length, padding, log_magnitude_limit, **arguments):
        super().__init__(**arguments | {"dtype": "float32"})
        check_istft(n_fft, hop_length, padding)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = padding
        self.log_magnitude_limit = log_magnitude_limit
        self.bins = n_fft // 2 + 1

    @property
    def reach(self):
        """Frames on each side that a sample depends on."""
        return -(-self.n_fft // (2 * self.hop_length))

    def magnitude(self, x):
        """(batch, frames, n_fft / 2 + 1)"""
        return ops.exp(ops.minimum(x[..., : self.bins], self.log_magnitude_limit))

    def get_config(self):
        return super().get_config() | {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "padding": self.padding,
            "log_magnitude_limit": self.log_magnitude_limit,
        }


@keras.saving.register_keras_serializable("vocoder")
class ISTFT(SpectralHead):
    """The head of iSTFTNet (arXiv:2203.02395) and Vocos (arXiv:2306.00814).

    As many channels again as there are magnitudes make the phases.

    Args:
        n_fft, hop_length, padding, log_magnitude_limit: As in `SpectralHead`.
        phase: "free": in radians, free to wrap as in Vocos. "sine": pi times the sine, after
            iSTFTNet, which takes a sine.

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
        super().__init__(n_fft, hop_length, padding, log_magnitude_limit, **arguments)
        check_phase(phase)
        self.phase = phase
        self.channels = 2 * self.bins

    def call(self, x):
        magnitude = self.magnitude(x)
        phase = x[..., self.bins :]
        if self.phase == "sine":
            phase = math.pi * ops.sin(phase)
        real, imaginary = magnitude * ops.cos(phase), magnitude * ops.sin(phase)
        return inverse_stft(real, imaginary, self.hop_length, self.padding)

    def get_config(self):
        return super().get_config() | {"phase": self.phase}


@keras.saving.register_keras_serializable("vocoder")
class GriffinLim(SpectralHead):
    """Phases that make the frames fit one another, by fast Griffin-Lim from phases of zero.

    Perraudin, Balazs and Sondergaard 2013. To the gradient the phases are constants, so that a
    network learns magnitudes which are those of what is heard.

    Args:
        n_fft, hop_length, padding, log_magnitude_limit: As in `SpectralHead`.
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
        super().__init__(n_fft, hop_length, padding, log_magnitude_limit, **arguments)
        self.iterations = iterations
        self.training_iterations = training_iterations
        self.channels = self.bins

    @property
    def reach(self):
        overlapping = self.n_fft // self.hop_length - 1
        return max(self.iterations, self.training_iterations) * overlapping + super().reach

    def call(self, x, training=False):
        magnitude = self.magnitude(x)
        iterations = self.training_iterations if training else self.iterations
        cosine, sine = self._phases(ops.stop_gradient(magnitude), iterations)
        real, imaginary = magnitude * cosine, magnitude * sine
        return inverse_stft(real, imaginary, self.hop_length, self.padding)

    def _phases(self, magnitude, iterations):
        """Cosines and sines of the phases."""
        lengths = self.n_fft, self.hop_length
        around = [[0, 0], frame_margins(*lengths, self.padding)]
        cosine, sine = ops.ones_like(magnitude), ops.zeros_like(magnitude)
        before = None
        for _ in range(iterations):
            spectrum = magnitude * cosine, magnitude * sine
            wave = inverse_stft(*spectrum, self.hop_length, self.padding, with_fft=True)
            now = stft(ops.pad(wave, around), *lengths, self.n_fft, center=False)
            # Ahead of where it is, by how far it has come.
            real, imaginary = (
                n + MOMENTUM * (n - b) for n, b in zip(now, before or now, strict=True)
            )
            before = now
            size = ops.sqrt(ops.square(real) + ops.square(imaginary) + 1e-10)
            cosine, sine = real / size, imaginary / size
        return ops.stop_gradient(cosine), ops.stop_gradient(sine)

    def get_config(self):
        return super().get_config() | {
            "iterations": self.iterations,
            "training_iterations": self.training_iterations,
        }
