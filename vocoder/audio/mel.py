"""The mel spectrogram as a Keras layer."""

import dataclasses
import functools
import math

import keras
import librosa
import numpy as np
from keras import ops

from vocoder.audio.settings import AudioConfig, check_bands
from vocoder.audio.stft import pad_reflect, power_spectrogram


def mel_filterbank(sample_rate, n_fft, n_mels, fmin=0.0, fmax=None, htk=False, norm="slaney"):
    """librosa's filterbank, turned around for `power_spectrogram(x) @ filterbank`.

    Returns:
        (n_fft / 2 + 1, n_mels), float32.

    Raises:
        ValueError: "argument: reason".
    """
    check_bands(sample_rate, n_mels, fmin, fmax, norm)
    return librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
    ).T


def log_compress(mel, log: str, floor: float):
    """The natural or decadic logarithm of `max(mel, floor)`."""
    compressed = ops.log(ops.maximum(mel, floor))
    return compressed if log == "natural" else compressed / math.log(10)


def mel_to_magnitude(mel, audio: AudioConfig, floor: float = 1e-3):
    """The magnitude spectrogram that comes closest to a log-mel spectrogram: least squares.

    That is what `librosa.feature.inverse.mel_to_stft` begins with, before it goes on to forbid
    negative values. Here these become `floor`, as do the bins above `fmax`.

    Args:
        mel: (batch, frames, n_mels), as `MelSpectrogram` makes them.
        audio: Their settings.
        floor: Smallest magnitude; a sine at full scale has n_fft / 4.

    Returns:
        (batch, frames, n_fft / 2 + 1).
    """
    shape = (audio.sample_rate, audio.n_fft, audio.n_mels, audio.fmin, audio.fmax)
    inverse = _inverse_filterbank(*shape, audio.htk, audio.norm)
    exponent = mel if audio.log == "natural" else math.log(10) * mel
    # No mel of audio reaches e^20, whose square is still far from the end of float32.
    bands = ops.exp(ops.minimum(exponent, 20.0))
    spectrum = ops.maximum(ops.matmul(bands, ops.convert_to_tensor(inverse)), floor**audio.power)
    return spectrum if audio.power == 1 else ops.sqrt(spectrum)


@functools.cache
def _inverse_filterbank(*settings):
    """(n_mels, n_fft / 2 + 1), float32."""
    return np.linalg.pinv(mel_filterbank(*settings).astype("float64")).astype("float32")


@keras.saving.register_keras_serializable("vocoder")
class MelSpectrogram(keras.layers.Layer):
    """Log-mel spectrogram of waveforms, (batch, samples) -> (batch, frames, n_mels), float32.

    With the default settings it is HiFi-GAN's (github.com/jik876/hifi-gan, `mel_spectrogram`):
    periodic Hann window, librosa's Slaney filterbank, natural logarithm of max(mel, 1e-5).

    Args:
        sample_rate, fmin, fmax: Hz; `fmax=None` is half the sample rate.
        n_fft, hop_length, win_length: Samples.
        n_mels: Number of bands.
        log: "natural" or "log10".
        floor: Smallest mel magnitude before the logarithm.
        power: Exponent of the magnitude spectrogram, 1 or 2.
        padding: "same" (samples // hop_length frames), "center" (likewise, frames centred on
            multiples of the hop), or "valid" (no padding: the caller has brought the margins of
            `AudioConfig.margins`). What is reflected may be shorter than the margins.
        htk, norm: As in `librosa.filters.mel`.
        magnitude_epsilon: Added to the squared magnitude before the root.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        sample_rate=22050,
        n_fft=1024,
        hop_length=256,
        win_length=1024,
        n_mels=80,
        fmin=0.0,
        fmax=8000.0,
        log="natural",
        floor=1e-5,
        power=1.0,
        padding="same",
        htk=False,
        norm="slaney",
        magnitude_epsilon=1e-9,
        **layer_arguments,
    ):
        layer_arguments.setdefault("dtype", "float32")  # an FFT in half precision is no use
        super().__init__(**layer_arguments)
        self.padding = padding
        self.settings = AudioConfig(
            sample_rate=sample_rate,
            n_fft=n_fft,
            hop_length=hop_length,
            win_length=win_length,
            n_mels=n_mels,
            fmin=fmin,
            fmax=fmax,
            log=log,
            floor=floor,
            power=power,
            padding="center" if padding == "valid" else padding,
            htk=htk,
            norm=norm,
            magnitude_epsilon=magnitude_epsilon,
        )
        self._filterbank = mel_filterbank(sample_rate, n_fft, n_mels, fmin, fmax, htk, norm)

    def call(self, waveform):
        settings = self.settings
        frames = None
        if self.padding != "valid":
            frames = ops.shape(waveform)[1] // settings.hop_length
            if isinstance(frames, int) and not frames:
                raise ValueError(
                    f"waveform: {waveform.shape[1]} samples are no frame; hop_length is "
                    f"{settings.hop_length}"
                )
            waveform = pad_reflect(waveform, *settings.margins)
        spectrum = power_spectrogram(
            waveform, settings.n_fft, settings.hop_length, settings.win_length, center=False
        )[:, :frames]
        if settings.power == 1:
            spectrum = ops.sqrt(spectrum + settings.magnitude_epsilon)
        mel = ops.matmul(spectrum, ops.convert_to_tensor(self._filterbank))
        return log_compress(mel, settings.log, settings.floor)

    def get_config(self):
        return super().get_config() | dataclasses.asdict(self.settings) | {"padding": self.padding}
