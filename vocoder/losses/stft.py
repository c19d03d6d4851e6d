"""Spectral convergence and log-magnitude distance of short-time Fourier transforms.

Arik et al., arXiv:1808.06719; multi-resolution as in Parallel WaveGAN (arXiv:1910.11480). The
numbers are those of auraloss 0.4 (github.com/csteinmetz1/auraloss), but for silent recordings.
"""

import math

import keras
from keras import ops

from vocoder.audio.settings import MOST_SAMPLES, check_window
from vocoder.audio.stft import SILENCE, power_spectrogram
from vocoder.kinds import check_each, check_number


@keras.saving.register_keras_serializable("vocoder")
class STFTLoss(keras.losses.Loss):
    """Spectral convergence plus L1 of the log magnitudes, at one resolution.

    Called with two waveforms (batch, samples); one value an example. Frames are centred and
    reflected at the ends; Hann window.

    Spectral convergence is an error's share of the recording, |S - S'| / |S|, of which nothing is
    left where the recording is silent: noise of 0.05 at digital silence would have 7,600, with a
    gradient of 15,000 times that at speech. So below `vocoder.audio.stft.SILENCE`, whose norm
    is F, the divisor is F + (1 - |S| / F) |S'|. Digital silence has about 1 at most.

    Args:
        n_fft, hop_length, win_length: Samples.
        convergence: Over what the norms of spectral convergence go. "example": one ratio for each
            example, so that the mean over a batch doesn't depend on how the batch is split over
            devices. "batch": the whole batch, as in auraloss.
        convergence_weight, magnitude_weight: Factors of the two summands; 0 leaves one out.
        power_floor: Smallest power, 1e-8 in auraloss; it keeps logarithms and gradients finite.

    Attributes:
        shortest: Samples of a waveform of which nothing is reflected twice.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        n_fft=1024,
        hop_length=256,
        win_length=1024,
        convergence="example",
        convergence_weight=1.0,
        magnitude_weight=1.0,
        power_floor=1e-8,
        name="stft",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_window(n_fft, hop_length, win_length)
        if convergence not in ("example", "batch"):
            raise ValueError(f'convergence: must be "example" or "batch", not {convergence!r}')
        check_number("convergence_weight", convergence_weight)
        check_number("magnitude_weight", magnitude_weight)
        if min(convergence_weight, magnitude_weight) < 0:
            raise ValueError("convergence_weight: this and magnitude_weight must be 0 or more")
        check_number("power_floor", power_floor, 1e-30)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        self.convergence = convergence
        self.convergence_weight = convergence_weight
        self.magnitude_weight = magnitude_weight
        self.power_floor = power_floor
        self.shortest = 1 + n_fft // 2

    def call(self, y_true, y_pred):
        true, pred = (
            ops.sqrt(ops.maximum(self._power(y), self.power_floor)) for y in (y_true, y_pred)
        )
        values = 0.0
        if self.convergence_weight:
            values = values + self.convergence_weight * self._convergence(true, pred)
        if self.magnitude_weight:
            distance = ops.mean(ops.abs(ops.log(true) - ops.log(pred)), axis=(1, 2))
            values = values + self.magnitude_weight * distance
        return values + ops.zeros_like(true[:, 0, 0])  # (batch,), whatever was left out

    def _power(self, y):
        return power_spectrogram(y, self.n_fft, self.hop_length, self.win_length)

    def _convergence(self, true, pred):
        axis = None if self.convergence == "batch" else (1, 2)

        def size(x):
            # The maximum has a gradient of 0 where the spectra are equal; that of a square root of
            # 0 would be infinite.
            return ops.sqrt(ops.maximum(ops.mean(ops.square(x), axis=axis), 1e-20))

        recorded = size(true)
        silence = SILENCE * math.sqrt(3 / 8 * self.win_length)  # by the energy of a Hann window
        missing = ops.relu(1 - recorded / silence)
        return size(true - pred) / (ops.maximum(recorded, silence) + missing * size(pred))

    def get_config(self):
        return super().get_config() | {
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "win_length": self.win_length,
            "convergence": self.convergence,
            "convergence_weight": self.convergence_weight,
            "magnitude_weight": self.magnitude_weight,
            "power_floor": self.power_floor,
        }


@keras.saving.register_keras_serializable("vocoder")
class MultiResolutionSTFTLoss(keras.losses.Loss):
    """Mean of `STFTLoss` over several resolutions; the defaults are auraloss's.

    Args:
        n_fft, hop_length, win_length: Samples, a value for each resolution.
        convergence, convergence_weight, magnitude_weight, power_floor: As in `STFTLoss`.

    Attributes:
        shortest: As in `STFTLoss`.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        n_fft=(1024, 2048, 512),
        hop_length=(120, 240, 50),
        win_length=(600, 1200, 240),
        convergence="example",
        convergence_weight=1.0,
        magnitude_weight=1.0,
        power_floor=1e-8,
        name="multi_resolution_stft",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        for key, lengths in {
            "n_fft": n_fft,
            "hop_length": hop_length,
            "win_length": win_length,
        }.items():
            check_each(key, lengths, 1, MOST_SAMPLES)
        if not len(n_fft) == len(hop_length) == len(win_length):
            raise ValueError("n_fft: n_fft, hop_length and win_length need as many values each")
        self.losses = [
            STFTLoss(
                *lengths,
                convergence=convergence,
                convergence_weight=convergence_weight,
                magnitude_weight=magnitude_weight,
                power_floor=power_floor,
            )
            for lengths in zip(n_fft, hop_length, win_length, strict=True)
        ]
        self.shortest = max(loss.shortest for loss in self.losses)

    def call(self, y_true, y_pred):
        return sum(loss.call(y_true, y_pred) for loss in self.losses) / len(self.losses)

    def get_config(self):
        first = self.losses[0]
        return super().get_config() | {
            "n_fft": [loss.n_fft for loss in self.losses],
            "hop_length": [loss.hop_length for loss in self.losses],
            "win_length": [loss.win_length for loss in self.losses],
            "convergence": first.convergence,
            "convergence_weight": first.convergence_weight,
            "magnitude_weight": first.magnitude_weight,
            "power_floor": first.power_floor,
        }
