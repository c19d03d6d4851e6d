"""Heads that make samples of spectra."""

import math

from keras import ops

from vocoder.heads.base import Head
from vocoder.kinds import check_number, check_whole, either

MOST_N_FFT = 2**13  # whose inverse DFT as a matrix has half a gigabyte


class SpectralHead(Head):
    """Log magnitudes, and what else `channels` hold, to samples.

    The first n_fft / 2 + 1 channels are the logarithm of the magnitude.

    Args:
        n_fft, hop_length: Samples; `hop_length` divides `n_fft` at least twice, with "center" at
            least three times, as the last hop then has the end of one window alone.
        padding: "same" or "center", as in `vocoder.audio.stft.inverse_stft`, best as in the mel.
            With "center", Vocos makes (frames - 1) * hop_length samples, up to where its last frame
            is centred. Our mels leave that frame out, so here the last of the others makes one more
            hop.
        magnitude_limit: Largest magnitude; 100 is Vocos' "safeguard".

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(self, n_fft, hop_length, padding, magnitude_limit, name):
        super().__init__(name)
        _check(n_fft, hop_length, padding)
        check_number("magnitude_limit", magnitude_limit, 1e-3, 1e9)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.padding = padding
        self.magnitude_limit = magnitude_limit
        self.bins = n_fft // 2 + 1

    @property
    def reach(self):
        return -(-self.n_fft // (2 * self.hop_length))

    def magnitude(self, x):
        """(batch, frames, n_fft / 2 + 1)"""
        return ops.exp(ops.minimum(x[..., : self.bins], math.log(self.magnitude_limit)))

    def get_config(self):
        return super().get_config() | {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "padding": self.padding,
            "magnitude_limit": self.magnitude_limit,
        }


def _check(n_fft, hop_length, padding):
    check_whole("n_fft", n_fft, 2, MOST_N_FFT)
    check_whole("hop_length", hop_length, 1, MOST_N_FFT)
    if padding not in ("same", "center"):
        raise ValueError(f'padding: must be "same" or "center", not {padding!r}')
    least, times = (2, "twice") if padding == "same" else (3, "three times")
    step = hop_length * (1 + hop_length % 2)  # even multiples
    if n_fft % step or n_fft < least * hop_length:
        below = n_fft // step * step
        smallest = -(-least * hop_length // step) * step
        nearest = either(below, max(below + step, smallest), least=smallest)
        raise ValueError(
            f"hop_length: {hop_length} must divide n_fft ({n_fft}, even) at least {times}; "
            f"head.n_fft={nearest} would do"
        )
