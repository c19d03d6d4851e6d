"""Distances of spectra."""

import functools
import math

import numpy as np
from scipy.fft import dct

from vocoder.audio import MelSpectrogram
from vocoder.evaluation.metric import Measure, Metric
from vocoder.losses.mel import MelLoss
from vocoder.losses.stft import MultiResolutionSTFTLoss


def _window(sample_rate):
    """The power of two that is nearest to 46 ms: 1024 samples at 22,050 Hz."""
    return 2 ** round(math.log2(0.046 * sample_rate))


def _batch(x):
    return x[None].astype(np.float32)


class LogMelL1(Metric):
    """Mean absolute difference of log-mel spectrograms, as HiFi-GAN validates.

    80 bands up to half the sample rate, natural logarithm, windows of 46 ms (1024 samples at
    22,050 Hz), whatever mel a model was trained on.
    """

    measures = (Measure("log_mel_l1", "log-mel L1", "", False),)

    def compute(self, reference, synthesised, sample_rate):
        loss = _mel_loss(sample_rate)
        return (float(loss.call(_batch(reference), _batch(synthesised))[0]),)


@functools.lru_cache
def _mel_loss(sample_rate):
    return MelLoss(sample_rate, n_fft=_window(sample_rate))


class MultiResolutionSTFT(Metric):
    """Multi-resolution STFT distance, as BigVGAN reports it (M-STFT).

    That is auraloss' `MultiResolutionSTFTLoss` with its defaults: spectral convergence plus L1 of
    the log magnitudes, mean over three windows. See `vocoder.losses.stft`.
    """

    measures = (Measure("mr_stft", "M-STFT", "", False),)

    def __init__(self):
        self._loss = MultiResolutionSTFTLoss()

    def compute(self, reference, synthesised, sample_rate):
        return (float(self._loss.call(_batch(reference), _batch(synthesised))[0]),)


class MelCepstralDistortion(Metric):
    """Mel-cepstral distortion in dB (Kubichek 1993), of the coefficients 1 to 13.

    10 / ln 10 * sqrt(2 * sum over k of (c_k - c'_k)^2), mean over the frames. The cepstrum is the
    cosine transform of a log-mel spectrogram (80 bands up to 8 kHz, windows of 46 ms), scaled as
    that of a minimum-phase filter: c_k = 2 / N * sum over the N bands of
    ln(mel_n) * cos(pi * k * (n + 1/2) / N). So it is the root mean square difference of two
    smoothed spectra on the mel scale, in dB, whatever their loudness, which is c_0. Both clips run
    side by side: nothing is warped in time. Figures by other mel-cepstra (SPTK's, WORLD's) are not
    the same.
    """

    measures = (Measure("mcd", "MCD", "dB", False),)

    def compute(self, reference, synthesised, sample_rate):
        layer = _mel_layer(sample_rate)
        first, second = (
            dct(np.asarray(layer(_batch(x)))[0], type=2, axis=-1)[:, 1:14] / layer.settings.n_mels
            for x in (reference, synthesised)
        )
        distance = np.sqrt(2 * np.sum(np.square(first - second), axis=-1))
        return (10 / math.log(10) * distance.mean(),)


@functools.lru_cache
def _mel_layer(sample_rate):
    window = _window(sample_rate)
    fmax = min(8000.0, sample_rate / 2)
    return MelSpectrogram(
        sample_rate, n_fft=window, hop_length=window // 4, win_length=window, fmax=fmax
    )
