"""HiFi-GAN's multi-period discriminator (arXiv:2010.05646; github.com/jik876/hifi-gan)."""

import keras
from keras import ops

from vocoder.audio.settings import MOST_SAMPLES
from vocoder.audio.stft import pad_reflect
from vocoder.discriminators.base import (
    ConvStack,
    Discriminator,
    check_norm,
    check_slope,
    check_stack,
    score_convolution,
)
from vocoder.kinds import check_each


@keras.saving.register_keras_serializable("vocoder")
class MultiPeriodDiscriminator(Discriminator):
    """Looks at every p-th sample, for several periods p: sub-discriminators "mpd_2", "mpd_3", ...

    The maps are (batch, period, time, channels). With the defaults it is the original: 41,105,770
    trainable parameters, weight normalisation's `g` and `v` counted each.

    Args:
        periods: Samples; one sub-discriminator each.
        channels, kernel_sizes, strides: Of each convolution but the last, along time.
        score_kernel_size: Taps of the last convolution.
        norm: "weight", "spectral" or None.
        slope: Of the leaky ReLUs.
        name, dtype: As in every Keras model; dtype is a policy such as "mixed_bfloat16".

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        periods=(2, 3, 5, 7, 11),
        channels=(32, 128, 512, 1024, 1024),
        kernel_sizes=(5, 5, 5, 5, 5),
        strides=(3, 3, 3, 3, 1),
        score_kernel_size=3,
        norm="weight",
        slope=0.1,
        name="mpd",
        dtype=None,
    ):
        super().__init__(name, dtype)
        check_norm("norm", norm)
        check_each("periods", periods, 1, MOST_SAMPLES)
        check_stack(channels, kernel_sizes, strides, score_kernel_size)
        check_slope(slope)
        self.periods = tuple(periods)
        self.channels = tuple(channels)
        self.kernel_sizes = tuple(kernel_sizes)
        self.strides = tuple(strides)
        self.score_kernel_size = score_kernel_size
        self.norm = norm
        self.slope = slope
        self.sub_discriminators = [f"{name}_{period}" for period in self.periods]
        # The period is an axis of its own that the kernels don't extend along. For most layers that
        # takes TensorFlow much less time on CPUs than the period as a part of the batch.
        sizes, steps = [(1, size) for size in kernel_sizes], [(1, stride) for stride in strides]
        self.stacks = [
            ConvStack(channels, sizes, steps, None, norm, slope, dtype=self.dtype_policy)
            for _ in self.periods
        ]
        self.scores = [
            score_convolution((1, score_kernel_size), norm, self.dtype_policy) for _ in self.periods
        ]

    def build(self, input_shape=None):
        for stack, score in zip(self.stacks, self.scores, strict=True):
            stack.build((None, None, None, 1))
            score.build((None, None, None, self.channels[-1]))
        self.built = True

    def call(self, waveform, training=False):
        layers = zip(self.sub_discriminators, self.periods, self.stacks, self.scores, strict=True)
        maps = {}
        for name, period, stack, score in layers:
            features = stack(fold(waveform, period))
            maps[name] = [*features, ops.cast(score(features[-1]), "float32")]
        return maps

    def get_config(self):
        return super().get_config() | {
            "periods": self.periods,
            "channels": self.channels,
            "kernel_sizes": self.kernel_sizes,
            "strides": self.strides,
            "score_kernel_size": self.score_kernel_size,
            "norm": self.norm,
            "slope": self.slope,
        }


def fold(waveform, period):
    """(batch, samples) -> (batch, period, time, 1), reflected at the end to a whole period."""
    waveform = pad_reflect(waveform, 0, -ops.shape(waveform)[1] % period)
    columns = ops.reshape(waveform, (-1, ops.shape(waveform)[1] // period, period, 1))
    return ops.transpose(columns, (0, 2, 1, 3))
