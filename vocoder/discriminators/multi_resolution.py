"""Discriminators of spectrograms: UnivNet's (arXiv:2106.07889), and DAC's and Vocos' in bands."""

import itertools

import keras
from keras import ops

from vocoder.audio.settings import MOST_SAMPLES, check_window
from vocoder.audio.stft import SILENCE, pad_reflect, power_spectrogram, stft
from vocoder.discriminators.base import (
    ConvStack,
    Discriminator,
    check_norm,
    check_slope,
    check_stack,
    score_convolution,
)
from vocoder.kinds import check_each, check_list, check_number


@keras.saving.register_keras_serializable("vocoder")
class MultiResolutionDiscriminator(Discriminator):
    """Looks at STFTs of several resolutions: sub-discriminators "mrd_1024", "mrd_2048", ...

    The defaults are UnivNet's: magnitudes, one stack of convolutions each, (n_fft - hop_length) / 2
    samples reflected at the ends. The maps are (batch, frames, bins, channels).

    In the form of DAC (arXiv:2306.06546) and Vocos (arXiv:2306.00814), the spectrum is complex and
    cut into bands with a stack for each, whose outputs are joined before the last convolution:
    `n_fft=(2048, 1024, 512)`, `hop_length=(512, 256, 128)`, `win_length=(2048, 1024, 512)`,
    `spectrum="complex"`, `bands=(0, 0.1, 0.25, 0.5, 0.75, 1)`, `peak=0.8`,
    `kernel_sizes=((3, 9), (3, 9), (3, 9), (3, 9), (3, 3))`,
    `strides=((1, 1), (1, 2), (1, 2), (1, 2), (1, 1))`, `slope=0.1`. The maps of all bands then
    stand in one list, band after band.

    Args:
        n_fft, hop_length, win_length: Samples, a value for each resolution.
        channels: Of each convolution but the last.
        kernel_sizes, strides: Of the same, (frames, bins) each.
        score_kernel_size: Of the last convolution, (frames, bins).
        spectrum: "magnitude", or "complex": two channels, real and imaginary parts.
        bands: Edges of the bands as shares of the bins, from 0 to 1.
        peak: Takes the mean off each waveform and scales it to this peak before, as if its own
            were no lower than `vocoder.audio.stft.SILENCE`; None leaves it.
        norm: "weight", "spectral" or None.
        slope: Of the leaky ReLUs.
        name, dtype: As in every Keras model; dtype is a policy such as "mixed_bfloat16".

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        n_fft=(1024, 2048, 512),
        hop_length=(120, 240, 50),
        win_length=(600, 1200, 240),
        channels=(32, 32, 32, 32, 32),
        kernel_sizes=((9, 3), (9, 3), (9, 3), (9, 3), (3, 3)),
        strides=((1, 1), (2, 1), (2, 1), (2, 1), (1, 1)),
        score_kernel_size=(3, 3),
        spectrum="magnitude",
        bands=(0, 1),
        peak=None,
        norm="weight",
        slope=0.2,
        name="mrd",
        dtype=None,
    ):
        super().__init__(name, dtype)
        check_norm("norm", norm)
        check_stack(channels, kernel_sizes, strides, score_kernel_size, axes=2)
        check_slope(slope)
        for argument, lengths in {
            "n_fft": n_fft,
            "hop_length": hop_length,
            "win_length": win_length,
        }.items():
            check_each(argument, lengths, 1, MOST_SAMPLES)
        if not len(n_fft) == len(hop_length) == len(win_length):
            raise ValueError("n_fft: n_fft, hop_length and win_length need as many values each")
        self.resolutions = tuple(zip(n_fft, hop_length, win_length, strict=True))
        for lengths in self.resolutions:
            check_window(*lengths)
        if spectrum not in ("magnitude", "complex"):
            raise ValueError(f'spectrum: must be "magnitude" or "complex", not {spectrum!r}')
        check_list("bands", bands)
        for edge in bands:
            check_number("bands", edge, 0, 1)
        if len(bands) < 2 or (bands[0], bands[-1]) != (0, 1):
            raise ValueError(f"bands: {list(bands)} must grow from 0 to 1")
        for length in n_fft:
            edges = _edges(bands, length // 2 + 1)
            if any(low >= high for low, high in itertools.pairwise(edges)):
                raise ValueError(
                    f"bands: {list(bands)} must grow from 0 to 1, each with a bin of n_fft={length}"
                )
        if peak is not None:
            check_number("peak", peak)
            if not peak > 0:
                raise ValueError(f"peak: must be above 0 or null, not {peak}")
        self.channels = tuple(channels)
        self.kernel_sizes = tuple(map(tuple, kernel_sizes))
        self.strides = tuple(map(tuple, strides))
        self.score_kernel_size = tuple(score_kernel_size)
        self.spectrum = spectrum
        self.bands = tuple(bands)
        self.peak = peak
        self.norm = norm
        self.slope = slope
        self.sub_discriminators = [f"{name}_{length}" for length in n_fft]
        stack = (self.channels, self.kernel_sizes, self.strides, None, norm, slope)
        self.stacks = [
            [ConvStack(*stack, dtype=self.dtype_policy) for _ in self.bands[1:]] for _ in n_fft
        ]
        self.scores = [
            score_convolution(self.score_kernel_size, norm, self.dtype_policy) for _ in n_fft
        ]

    def build(self, input_shape=None):
        channels = 1 if self.spectrum == "magnitude" else 2
        for stacks, score in zip(self.stacks, self.scores, strict=True):
            for stack in stacks:
                stack.build((None, None, None, channels))
            score.build((None, None, None, self.channels[-1]))
        self.built = True

    def call(self, waveform, training=False):
        if self.peak is not None:
            waveform = waveform - ops.mean(waveform, axis=1, keepdims=True)
            highest = ops.max(ops.abs(waveform), axis=1, keepdims=True)
            waveform = self.peak * waveform / ops.maximum(highest, SILENCE)
        layers = zip(
            self.sub_discriminators, self.resolutions, self.stacks, self.scores, strict=True
        )
        maps = {}
        for name, lengths, stacks, score in layers:
            spectrum = self._spectrum(waveform, *lengths)
            edges = _edges(self.bands, spectrum.shape[2])
            of_bands = [
                stack(spectrum[:, :, low:high])
                for stack, low, high in zip(stacks, edges, edges[1:], strict=False)
            ]
            joined = ops.concatenate([features[-1] for features in of_bands], axis=2)
            features = [one for features in of_bands for one in features]
            maps[name] = [*features, ops.cast(score(joined), "float32")]
        return maps

    def _spectrum(self, waveform, n_fft, hop_length, win_length):
        """(batch, frames, bins, 1 or 2)"""
        reach = (n_fft - hop_length) // 2
        length = ops.shape(waveform)[1]
        if isinstance(length, int) and length <= reach:
            raise ValueError(
                f"waveform: {length} samples can't be seen in windows of n_fft={n_fft}; "
                f"{reach + 1} or more can"
            )
        waveform = pad_reflect(ops.cast(waveform, "float32"), reach, reach)
        if self.spectrum == "complex":
            return ops.stack(stft(waveform, n_fft, hop_length, win_length, center=False), axis=-1)
        power = power_spectrogram(waveform, n_fft, hop_length, win_length, center=False)
        return ops.sqrt(power + 1e-9)[..., None]  # with a finite gradient at silence

    def get_config(self):
        n_fft, hop_length, win_length = zip(*self.resolutions, strict=True)
        return super().get_config() | {
            "n_fft": n_fft,
            "hop_length": hop_length,
            "win_length": win_length,
            "channels": self.channels,
            "kernel_sizes": self.kernel_sizes,
            "strides": self.strides,
            "score_kernel_size": self.score_kernel_size,
            "spectrum": self.spectrum,
            "bands": self.bands,
            "peak": self.peak,
            "norm": self.norm,
            "slope": self.slope,
        }


def _edges(bands, bins):
    """The first bin of each band, and the end of the last."""
    return [int(edge * bins) for edge in bands]
