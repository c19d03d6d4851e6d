"""An inverse STFT of magnitudes and phases that the network makes."""

import math
import reprlib

import keras
from keras import ops

from vocoder.audio.stft import inverse_stft
from vocoder.heads.spectral import SpectralHead


@keras.saving.register_keras_serializable("vocoder")
class ISTFT(SpectralHead):
    """The head of iSTFTNet (arXiv:2203.02395) and Vocos (arXiv:2306.00814).

    As many channels again as there are magnitudes make the phases.

    Args:
        n_fft, hop_length, padding, magnitude_limit: As in `SpectralHead`.
        phase: "free": in radians, free to wrap as in Vocos. "sine": pi times the sine, after
            iSTFTNet, which takes a sine.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        n_fft=1024,
        hop_length=256,
        padding="same",
        phase="free",
        magnitude_limit=100.0,
        name="istft",
    ):
        super().__init__(n_fft, hop_length, padding, magnitude_limit, name)
        if phase not in ("free", "sine"):
            raise ValueError(f'phase: must be "free" or "sine", not {reprlib.repr(phase)}')
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
