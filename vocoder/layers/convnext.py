"""The one-dimensional ConvNeXt block of Vocos (Siuzdak, arXiv:2306.00814; gemelo-ai/vocos)."""

import keras
from keras import ops

KERNEL_SIZE = 7
EPSILON = 1e-6


def initial_kernel():
    """Vocos' initial weights; the original's truncation is a hundred deviations away."""
    return keras.initializers.RandomNormal(stddev=0.02)


def dense(units, dtype):
    """A dense layer with Vocos' initial weights."""
    return keras.layers.Dense(units, kernel_initializer=initial_kernel(), dtype=dtype)


def layer_norm(dtype):
    """Layer normalisation over the channels, with Vocos' epsilon."""
    return keras.layers.LayerNormalization(epsilon=EPSILON, dtype=dtype)


@keras.saving.register_keras_serializable("vocoder")
class DepthwiseConv1D(keras.layers.Layer):
    """Every channel convolved with its own taps, (batch, time, channels) -> the same.

    Args:
        kernel_size: Odd number of taps.
    """

    def __init__(self, kernel_size, **arguments):
        super().__init__(**arguments)
        self.kernel_size = kernel_size

    def build(self, input_shape):
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel", shape=(self.kernel_size, 1, channels), initializer=initial_kernel()
        )
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer="zeros")

    def call(self, x):
        # Products of shifted copies: as fast as TensorFlow's depthwise convolution in a graph, and
        # some 15 times as fast as what XLA makes of that on a CPU.
        time, half = ops.shape(x)[1], self.kernel_size // 2
        padded = ops.pad(x, [[0, 0], [half, half], [0, 0]])
        kernel = ops.convert_to_tensor(self.kernel)
        return sum(
            (padded[:, tap : tap + time] * kernel[tap] for tap in range(self.kernel_size)),
            self.bias,
        )

    def get_config(self):
        return super().get_config() | {"kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable("vocoder")
class ConvNeXtBlock(keras.layers.Layer):
    """A residual of depthwise convolution, normalisation and two dense layers, scaled.

    (batch, time, channels) -> the same.

    Args:
        intermediate_dim: Units between the two dense layers.
        layer_scale: What the residual is multiplied by at first, in every channel.
    """

    def __init__(self, intermediate_dim, layer_scale, **arguments):
        super().__init__(**arguments)
        self.intermediate_dim = intermediate_dim
        self.layer_scale = layer_scale

    @property
    def reach(self):
        """Frames on each side that an output depends on."""
        return KERNEL_SIZE // 2

    def build(self, input_shape):
        dim = input_shape[-1]
        self.depthwise = DepthwiseConv1D(KERNEL_SIZE, dtype=self.dtype_policy)
        self.norm = layer_norm(self.dtype_policy)
        self.expand = dense(self.intermediate_dim, self.dtype_policy)
        self.project = dense(dim, self.dtype_policy)
        self.gamma = self.add_weight(
            name="gamma",
            shape=(dim,),
            initializer=keras.initializers.Constant(self.layer_scale),
        )
        for layer in (self.depthwise, self.norm, self.expand):
            layer.build(input_shape)
        self.project.build((*input_shape[:-1], self.intermediate_dim))

    def call(self, x):
        # PyTorch's GELU, by the error function.
        y = ops.gelu(self.expand(self.norm(self.depthwise(x))), approximate=False)
        return x + self.gamma * self.project(y)

    def get_config(self):
        return super().get_config() | {
            "intermediate_dim": self.intermediate_dim,
            "layer_scale": self.layer_scale,
        }
