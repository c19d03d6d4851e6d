"""What every discriminator is."""

import keras
from keras import ops

from vocoder.kinds import check_each, check_list, check_number, check_precision, check_whole, either
from vocoder.layers.conv2d import NORMS, conv2d

# More than any discriminator has, so that a file from a stranger can't ask for all memory.
MOST_CHANNELS, MOST_TAPS, MOST_PARTS = 2**16, 2**10, 64


class Discriminator(keras.Model):
    """A network from waveforms, (batch, samples), to the feature maps of sub-discriminators.

    `discriminator(waveform)` is {sub-discriminator: [feature map, ..., score]}: the batch is the
    first axis of every map, the channels are the last, and the score, the map of the last
    convolution, is float32. `training=True` only lets spectral normalisation iterate; otherwise a
    call changes nothing.

    A subclass has explicit constructor arguments, which its `get_config` returns.

    Attributes:
        sub_discriminators: Their names, each beginning with the discriminator's.
    """

    sub_discriminators: list[str]

    def __init__(self, name, dtype):
        # The waveform stays float32 whatever the precision; each convolution casts what it gets.
        super().__init__(name=name, dtype=dtype, autocast=False)
        check_precision("dtype", self.dtype_policy.name)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype_policy.name}


class ConvStack(keras.layers.Layer):
    """Convolutions with leaky ReLUs between them: one sub-discriminator, or a part of one.

    Args:
        channels: Of each convolution.
        kernel_sizes: Of each convolution, two odd numbers.
        strides: Of each convolution, two numbers.
        groups: Of each convolution; None for one group each.
        norm: "weight", "spectral" or None.
        slope: Of the leaky ReLU after every convolution.
    """

    def __init__(self, channels, kernel_sizes, strides, groups, norm, slope, **arguments):
        super().__init__(**arguments)
        self.slope = slope
        self.convolutions = [
            conv2d(filters, size, stride, groups=group, norm=norm, dtype=self.dtype_policy)
            for filters, size, stride, group in zip(
                channels, kernel_sizes, strides, groups or [1] * len(channels), strict=True
            )
        ]

    def build(self, input_shape):
        shape = tuple(input_shape)
        for convolution in self.convolutions:
            convolution.build(shape)
            shape = (*shape[:-1], convolution.filters)
        self.built = True

    def call(self, x):
        """The maps after each leaky ReLU."""
        maps = []
        for convolution in self.convolutions:
            x = ops.leaky_relu(convolution(x), negative_slope=self.slope)
            maps.append(x)
        return maps


def score_convolution(kernel_size, norm, dtype):
    """The last convolution, to one channel."""
    return conv2d(1, kernel_size, norm=norm, dtype=dtype)


def check_norm(argument, norm):
    """Raises `ValueError("argument: reason")` for an unknown norm."""
    if norm not in NORMS:
        raise ValueError(f'{argument}: must be "weight", "spectral" or null, not {norm!r}')


def check_stack(channels, kernel_sizes, strides, score_kernel_size, axes=1):
    """Raises `ValueError("argument: reason")` unless a stack of convolutions can be made of these.

    Args:
        channels: Of each convolution but the last.
        kernel_sizes, strides: Of the same, a number each, or with more `axes` as many.
        score_kernel_size: Of the last.
        axes: Along which the convolutions extend.
    """
    check_each("channels", channels, 1, MOST_CHANNELS)
    for name, sizes in {"kernel_sizes": kernel_sizes, "strides": strides}.items():
        check_list(name, sizes)
        if len(sizes) != len(channels):
            raise ValueError(f"{name}: {len(sizes)} of them for {len(channels)} channels")
        for size in sizes:
            _check_size(name, size, axes)
    _check_size("score_kernel_size", score_kernel_size, axes)
    for size in (*kernel_sizes, score_kernel_size):
        for taps in size if axes > 1 else (size,):
            if taps % 2 == 0:
                nearest = either(taps - 1, taps + 1)
                raise ValueError(f"kernel_sizes: {taps} is not odd; {nearest} would do")


def _check_size(name, size, axes):
    if axes == 1:
        check_whole(name, size, 1, MOST_TAPS)
        return
    check_each(name, size, 1, MOST_TAPS)
    if len(size) != axes:
        raise ValueError(f"{name}: {list(size)} must be {axes} numbers")


def check_slope(slope):
    """Raises `ValueError("slope: reason")` unless a leaky ReLU can have it."""
    check_number("slope", slope, 0, 1)
