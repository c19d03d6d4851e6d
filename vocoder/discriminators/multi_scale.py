"""HiFi-GAN's multi-scale discriminator, after MelGAN's (github.com/jik876/hifi-gan)."""

import math

import keras
from keras import ops

from vocoder.discriminators.base import (
    MOST_PARTS,
    MOST_TAPS,
    ConvStack,
    Discriminator,
    check_norm,
    check_slope,
    check_stack,
    score_convolution,
)
from vocoder.kinds import check_each, check_list, either


@keras.saving.register_keras_serializable("vocoder")
class MultiScaleDiscriminator(Discriminator):
    """Looks at the waveform and at means of it: sub-discriminators "msd_1", "msd_2", "msd_4".

    Each next one sees half the rate of the one before; its name says how many samples of the
    waveform a sample of its own stands for. The maps are (batch, 1, time, channels). With the
    defaults it is the original: 29,618,821 trainable parameters, weight normalisation's `g` and `v`
    counted each, and without the singular vectors of spectral normalisation, which are not trained.

    Args:
        norms: "weight", "spectral" or None for each scale; as many scales as there are norms.
        channels, kernel_sizes, strides, groups: Of each convolution but the last.
        score_kernel_size: Taps of the last convolution.
        slope: Of the leaky ReLUs.
        name, dtype: As in every Keras model; dtype is a policy such as "mixed_bfloat16".

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        norms=("spectral", "weight", "weight"),
        channels=(128, 128, 256, 512, 1024, 1024, 1024),
        kernel_sizes=(15, 41, 41, 41, 41, 41, 5),
        strides=(1, 2, 2, 4, 4, 1, 1),
        groups=(1, 4, 16, 16, 16, 16, 1),
        score_kernel_size=3,
        slope=0.1,
        name="msd",
        dtype=None,
    ):
        super().__init__(name, dtype)
        check_list("norms", norms, MOST_PARTS)
        for norm in norms:
            check_norm("norms", norm)
        check_stack(channels, kernel_sizes, strides, score_kernel_size)
        check_slope(slope)
        check_each("groups", groups, 1, MOST_TAPS)
        if len(groups) != len(channels):
            raise ValueError(f"groups: {len(groups)} of them for {len(channels)} channels")
        for group, before, after in zip(groups, (1, *channels), channels, strict=False):
            if before % group or after % group:
                common = math.gcd(before, after)
                below = max(n for n in range(1, group) if common % n == 0)
                above = next((n for n in range(group, common + 1) if common % n == 0), 0)
                raise ValueError(
                    f"groups: {group} does not divide {before} and {after} channels; "
                    f"{either(below, above)} does"
                )
        self.norms = tuple(norms)
        self.channels = tuple(channels)
        self.kernel_sizes = tuple(kernel_sizes)
        self.strides = tuple(strides)
        self.groups = tuple(groups)
        self.score_kernel_size = score_kernel_size
        self.slope = slope
        self.sub_discriminators = [f"{name}_{2**scale}" for scale in range(len(norms))]
        sizes, steps = [(1, size) for size in kernel_sizes], [(1, stride) for stride in strides]
        self.stacks = [
            ConvStack(channels, sizes, steps, groups, norm, slope, dtype=self.dtype_policy)
            for norm in self.norms
        ]
        self.scores = [
            score_convolution((1, score_kernel_size), norm, self.dtype_policy)
            for norm in self.norms
        ]

    def build(self, input_shape=None):
        for stack, score in zip(self.stacks, self.scores, strict=True):
            stack.build((None, 1, None, 1))
            score.build((None, 1, None, self.channels[-1]))
        self.built = True

    def call(self, waveform, training=False):
        x = waveform[:, None, :, None]
        maps = {}
        for i, name in enumerate(self.sub_discriminators):
            if i > 0:
                x = halve(x)
            features = self.stacks[i](x)
            maps[name] = [*features, ops.cast(self.scores[i](features[-1]), "float32")]
        return maps

    def get_config(self):
        return super().get_config() | {
            "norms": self.norms,
            "channels": self.channels,
            "kernel_sizes": self.kernel_sizes,
            "strides": self.strides,
            "groups": self.groups,
            "score_kernel_size": self.score_kernel_size,
            "slope": self.slope,
        }


def halve(x):
    """Means of 4 samples, 2 apart, of (batch, 1, time, 1); the zeros at the ends count as samples.

    That is the original's AvgPool1d(4, 2, padding=2): one sample more than half as many.
    """
    padded = ops.pad(x, [[0, 0], [0, 0], [2, 2], [0, 0]])
    return ops.average_pool(padded, (1, 4), (1, 2), padding="valid")
