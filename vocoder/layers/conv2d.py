"""The 2-D convolutions of discriminators."""

import keras
from keras import ops

from vocoder.layers.spectral_norm import SpectralNorm
from vocoder.layers.weight_norm import WeightNorm, default_kernel

NORMS = ("weight", "spectral", None)
WIDE = 512  # channels in and out


@keras.saving.register_keras_serializable("vocoder")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with as many zeros on one side as on the other, as PyTorch pads.

    Keras' "same" puts fewer zeros in front when the stride is above 1; the length is the same.
    Kernels have odd sizes. Groups are convolved one by one: on CPUs TensorFlow takes 12 to 119
    times as long for the gradients of a grouped convolution (measured with those of HiFi-GAN's
    multi-scale discriminator, TensorFlow 2.21), and a batched matrix product of the frames 4 to 8
    times. Wide convolutions along the last axis alone are products of the frames: for those of
    HiFi-GAN's discriminators, where 20 MB of kernel meet some 100 positions of an example,
    TensorFlow's own gradient by the inputs takes 5 times as long as the output on CPUs without
    oneDNN, and that by the kernel 2 to 3 times with it.
    """

    def convolution_op(self, inputs, kernel):
        around = [[0, 0], *([size // 2, size // 2] for size in self.kernel_size), [0, 0]]
        padded = ops.pad(inputs, around)
        along_one = self.kernel_size[0] == self.strides[0] == 1
        if along_one and self.groups == 1 and min(kernel.shape[2:]) >= WIDE:
            return self._product(padded, kernel)
        parts = [
            ops.conv(one, weights, strides=self.strides, padding="valid")
            for one, weights in zip(
                ops.split(padded, self.groups, axis=-1),
                ops.split(ops.convert_to_tensor(kernel), self.groups, axis=-1),
                strict=True,
            )
        ]
        return ops.concatenate(parts, axis=-1)

    def _product(self, padded, kernel):
        size, stride = self.kernel_size[1], self.strides[1]
        last = ops.shape(padded)[2] - size  # where the last frame may begin
        taps = [padded[:, :, tap : last + tap + 1 : stride] for tap in range(size)]
        matrix = ops.reshape(kernel, (-1, self.filters))
        return ops.tensordot(ops.concatenate(taps, axis=-1), matrix, axes=1)


@keras.saving.register_keras_serializable("vocoder")
class WeightNormConv2D(WeightNorm, Conv2D):
    """`Conv2D` with weight normalisation."""


@keras.saving.register_keras_serializable("vocoder")
class SpectralNormConv2D(SpectralNorm, Conv2D):
    """`Conv2D` with spectral normalisation."""


def conv2d(filters, kernel_size, strides=1, *, norm, **arguments):
    """A convolution with zeros on both sides and PyTorch's initial kernels.

    Args:
        filters: Channels out.
        kernel_size: Two odd numbers.
        strides: One number or two.
        norm: "weight", "spectral" or None.
        arguments: Of `keras.layers.Conv2D`.
    """
    cls = {"weight": WeightNormConv2D, "spectral": SpectralNormConv2D, None: Conv2D}[norm]
    return cls(
        filters,
        kernel_size,
        strides,
        padding="same",
        kernel_initializer=default_kernel(),
        **arguments,
    )
