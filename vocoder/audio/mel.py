"""The mel spectrogram as a Keras layer."""

import math

import keras
import librosa
from keras import ops

from vocoder.audio.stft import check_window, pad_reflect, power_spectrogram
from vocoder.config import AudioConfig


def mel_filterbank(sample_rate, n_fft, n_mels, fmin=0.0, fmax=None, htk=False, norm="slaney"):
    """librosa's filterbank, turned around for `power_spectrogram(x) @ filterbank`.

    Returns:
        (n_fft / 2 + 1, n_mels), float32.

    Raises:
        ValueError: "argument: reason".
    """
    highest = sample_rate / 2
    fmax = highest if fmax is None else fmax
    if not 0 <= fmin < fmax:
        raise ValueError(f"fmin: {fmin} is not between 0 and fmax ({fmax})")
    if fmax > highest:
        raise ValueError(f"fmax: {fmax} is above half the sample rate ({highest:g})")
    if n_mels < 1:
        raise ValueError(f"n_mels: must be at least 1, not {n_mels}")
    return librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
    ).T


def log_compress(mel, log: str, floor: float):
    """The natural or decadic logarithm of `max(mel, floor)`."""
    compressed = ops.log(ops.maximum(mel, floor))
    return compressed if log == "natural" else compressed / math.log(10)


def check_log(log: str, floor: float) -> None:
    """Raises `ValueError("argument: reason")` for an unknown logarithm or a floor of 0."""
    if log not in ("natural", "log10"):
        raise ValueError(f'log: must be "natural" or "log10", not {log!r}')
    if not floor > 0:
        raise ValueError(f"floor: must be above 0, not {floor}")


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
            `AudioConfig.margins`).
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
        check_window(n_fft, hop_length, win_length)
        check_log(log, floor)
        if padding not in ("same", "center", "valid"):
            raise ValueError(f'padding: must be "same", "center" or "valid", not {padding!r}')
        if power not in (1, 2):
            raise ValueError(f"power: must be 1 or 2, not {power}")
        if norm not in (None, "slaney"):
            raise ValueError(f'norm: must be "slaney" or null, not {norm!r}')
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        self.n_mels = n_mels
        self.fmin = fmin
        self.fmax = fmax
        self.log = log
        self.floor = floor
        self.power = power
        self.padding = padding
        self.htk = htk
        self.norm = norm
        self.magnitude_epsilon = magnitude_epsilon
        self._filterbank = mel_filterbank(sample_rate, n_fft, n_mels, fmin, fmax, htk, norm)

    def call(self, waveform):
        if self.padding != "valid":
            margins = AudioConfig(
                n_fft=self.n_fft, hop_length=self.hop_length, padding=self.padding
            ).margins
            waveform = pad_reflect(waveform, *margins)
        spectrum = power_spectrogram(
            waveform, self.n_fft, self.hop_length, self.win_length, center=False
        )
        if self.power == 1:
            spectrum = ops.sqrt(spectrum + self.magnitude_epsilon)
        mel = ops.matmul(spectrum, ops.convert_to_tensor(self._filterbank))
        return log_compress(mel, self.log, self.floor)

    def get_config(self):
        return super().get_config() | {
            "sample_rate": self.sample_rate,
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "win_length": self.win_length,
            "n_mels": self.n_mels,
            "fmin": self.fmin,
            "fmax": self.fmax,
            "log": self.log,
            "floor": self.floor,
            "power": self.power,
            "padding": self.padding,
            "htk": self.htk,
            "norm": self.norm,
            "magnitude_epsilon": self.magnitude_epsilon,
        }
