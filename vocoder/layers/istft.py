"""The inverse-STFT head of iSTFTNet (arXiv:2203.02395) and Vocos (arXiv:2306.00814)."""

import math

import keras
from keras import ops

from vocoder.audio.stft import inverse_stft


@keras.saving.register_keras_serializable("vocoder")
class ISTFT(keras.layers.Layer):
    """Log magnitudes and phases to samples, always in float32.

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
        if padding not in ("same", "center"):
            raise ValueError(f'istft_padding: must be "same" or "center", not {padding!r}')
        if phase not in ("free", "sine"):
            raise ValueError(f'istft_phase: must be "free" or "sine", not {phase!r}')
        least, times = (2, "twice") if padding == "same" else (3, "three times")
        if hop_length < 1 or n_fft % hop_length or n_fft < least * hop_length or n_fft % 2:
            raise ValueError(
                f"istft_hop_length: {hop_length} must divide istft_n_fft ({n_fft}, even) "
                f"at least {times}"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = padding
        self.phase = phase
        self.log_magnitude_limit = log_magnitude_limit

    @property
    def reach(self):
        """Frames on each side that a sample depends on."""
        return -(-self.n_fft // (2 * self.hop_length))

    def call(self, x):
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
