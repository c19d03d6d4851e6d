"""The inverse-STFT head of iSTFTNet (Kaneko et al., arXiv:2203.02395)."""

import keras
from keras import ops

from vocoder.audio.stft import inverse_stft


@keras.saving.register_keras_serializable("vocoder")
class ISTFT(keras.layers.Layer):
    """Log magnitudes and phases to samples, always in float32.

    (batch, frames, n_fft + 2) -> (batch, frames * hop_length). The first n_fft / 2 + 1 channels
    are the logarithm of the magnitude, the others the phase in radians, free to wrap as in Vocos
    (arXiv:2306.00814); iSTFTNet's sine would hold it within one radian.

    Args:
        n_fft, hop_length: Samples; `hop_length` divides `n_fft` at least twice.
        log_magnitude_limit: Largest log magnitude, against an overflow of the exponential.
    """

    def __init__(self, n_fft, hop_length, log_magnitude_limit=10.0, **arguments):
        arguments["dtype"] = "float32"
        super().__init__(**arguments)
        if hop_length < 1 or n_fft % hop_length or n_fft < 2 * hop_length or n_fft % 2:
            raise ValueError(
                f"istft_hop_length: {hop_length} must divide istft_n_fft ({n_fft}, even) "
                "at least twice"
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.log_magnitude_limit = log_magnitude_limit

    @property
    def reach(self):
        """Frames on each side that a sample depends on."""
        return -(-self.n_fft // (2 * self.hop_length))

    def call(self, x):
        bins = self.n_fft // 2 + 1
        magnitude = ops.exp(ops.minimum(x[..., :bins], self.log_magnitude_limit))
        phase = x[..., bins:]
        return inverse_stft(magnitude * ops.cos(phase), magnitude * ops.sin(phase), self.hop_length)

    def get_config(self):
        return super().get_config() | {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "log_magnitude_limit": self.log_magnitude_limit,
        }
