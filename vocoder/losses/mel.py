"""L1 distance of mel spectrograms."""

import keras
from keras import ops

from vocoder.audio.mel import log_compress, mel_filterbank
from vocoder.audio.settings import MOST_BANDS, MOST_SAMPLES, check_log, check_window, frame_margins
from vocoder.audio.stft import pad_reflect, power_spectrogram
from vocoder.kinds import check_bool, check_each, check_list, check_number, check_whole


@keras.saving.register_keras_serializable("vocoder")
class MelLoss(keras.losses.Loss):
    """L1 distance of log-mel spectrograms at one resolution, as in HiFi-GAN.

    Called with two waveforms (batch, samples); one value an example. Hann window.

    Args:
        sample_rate, fmin, fmax: Hz; `fmax=None` is half the sample rate.
        n_fft, hop_length, win_length: Samples; None for a quarter of `n_fft`, and for `n_fft`.
        n_mels: Number of bands.
        log: "natural" (HiFi-GAN) or "log10" (DAC), which is 2.303 times smaller.
        floor: Smallest mel magnitude before the logarithm.
        linear_weight: Factor of the L1 distance of the mel magnitudes themselves, added to that of
            their logarithms.
        htk, norm: As in `librosa.filters.mel`.
        padding: Reflected at each end: "center" (n_fft / 2 samples, as in librosa) or "same"
            ((n_fft - hop_length) / 2, HiFi-GAN's).

    Attributes:
        shortest: Samples of a waveform of which nothing is reflected twice.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        sample_rate=22050,
        n_fft=1024,
        hop_length=None,
        win_length=None,
        n_mels=80,
        fmin=0.0,
        fmax=None,
        log="natural",
        floor=1e-5,
        linear_weight=0.0,
        htk=False,
        norm="slaney",
        padding="center",
        name="mel",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        check_whole("n_fft", n_fft, 1, MOST_SAMPLES)
        self.hop_length = max(1, n_fft // 4) if hop_length is None else hop_length
        self.win_length = n_fft if win_length is None else win_length
        self.n_mels = n_mels
        self.fmin = fmin
        self.fmax = fmax
        self.log = log
        self.floor = floor
        self.linear_weight = linear_weight
        self.htk = htk
        self.norm = norm
        self.padding = padding
        check_window(self.n_fft, self.hop_length, self.win_length)
        check_log(log, floor)
        if padding not in ("center", "same"):
            raise ValueError(f'padding: must be "center" or "same", not {padding!r}')
        check_number("linear_weight", linear_weight, 0)
        check_bool("htk", htk)
        self._filterbank = mel_filterbank(sample_rate, n_fft, n_mels, fmin, fmax, htk, norm)
        self.shortest = 1 + max(frame_margins(self.n_fft, self.hop_length, padding))

    def call(self, y_true, y_pred):
        true, pred = (self._mel(y) for y in (y_true, y_pred))
        distance = ops.abs(
            log_compress(true, self.log, self.floor) - log_compress(pred, self.log, self.floor)
        )
        if self.linear_weight:
            distance = distance + self.linear_weight * ops.abs(true - pred)
        return ops.mean(distance, axis=(1, 2))

    def _mel(self, y):
        center = self.padding == "center"
        if not center:
            y = pad_reflect(y, *frame_margins(self.n_fft, self.hop_length, self.padding))
        power = power_spectrogram(y, self.n_fft, self.hop_length, self.win_length, center)
        # 1e-9 under the root, as in HiFi-GAN, keeps the gradient finite at silence.
        return ops.matmul(ops.sqrt(power + 1e-9), ops.convert_to_tensor(self._filterbank))

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
            "linear_weight": self.linear_weight,
            "htk": self.htk,
            "norm": self.norm,
            "padding": self.padding,
        }


@keras.saving.register_keras_serializable("vocoder")
class MultiResolutionMelLoss(keras.losses.Loss):
    """Mean of `MelLoss` over several windows, each with its own number of bands.

    As in DAC (arXiv:2306.06546) and BigVGAN v2; the hop is a quarter of the window.

    Args:
        sample_rate, fmin, fmax: Hz, for all resolutions.
        n_fft: Window lengths in samples.
        n_mels: Bands, a value for each window.
        log: "natural" or "log10", for all, or a value for each window.
        floor, linear_weight, htk, norm: As in `MelLoss`.

    Attributes:
        shortest: As in `MelLoss`.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        sample_rate=22050,
        n_fft=(512, 1024, 2048),
        n_mels=(40, 80, 160),
        fmin=0.0,
        fmax=None,
        log="natural",
        floor=1e-5,
        linear_weight=0.0,
        htk=False,
        norm="slaney",
        name="multi_resolution_mel",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        check_each("n_fft", n_fft, 1, MOST_SAMPLES)
        check_each("n_mels", n_mels, 1, MOST_BANDS)
        logs = [log] * len(n_fft) if isinstance(log, str) else log
        check_list("log", logs)
        if not len(n_fft) == len(n_mels) == len(logs):
            raise ValueError("n_mels: n_fft, n_mels and log (if a list) need as many values each")
        self.losses = [
            MelLoss(
                sample_rate,
                n_fft=window,
                n_mels=bands,
                fmin=fmin,
                fmax=fmax,
                log=kind,
                floor=floor,
                linear_weight=linear_weight,
                htk=htk,
                norm=norm,
            )
            for window, bands, kind in zip(n_fft, n_mels, logs, strict=True)
        ]
        self.shortest = max(loss.shortest for loss in self.losses)

    def call(self, y_true, y_pred):
        return sum(loss.call(y_true, y_pred) for loss in self.losses) / len(self.losses)

    def get_config(self):
        first = self.losses[0]
        return super().get_config() | {
            "sample_rate": first.sample_rate,
            "n_fft": [loss.n_fft for loss in self.losses],
            "n_mels": [loss.n_mels for loss in self.losses],
            "fmin": first.fmin,
            "fmax": first.fmax,
            "log": [loss.log for loss in self.losses],
            "floor": first.floor,
            "linear_weight": first.linear_weight,
            "htk": first.htk,
            "norm": first.norm,
        }
