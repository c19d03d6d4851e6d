"""The dilated residual blocks of HiFi-GAN (Kong et al., arXiv:2010.05646) and BigVGAN."""

import keras
from keras import ops

from vocoder.layers.snake import AntiAliasedSnake
from vocoder.layers.weight_norm import conv1d

SLOPE = 0.1


def leaky_relu(x, slope=SLOPE):
    """max(x, slope * x), in the type of `x`."""
    return ops.leaky_relu(x, negative_slope=slope)


@keras.saving.register_keras_serializable("vocoder")
class ResidualBlock(keras.layers.Layer):
    """Residual convolutions of growing dilation, (batch, time, channels) -> the same.

    Args:
        channels: Channels in and out.
        kernel_size: Odd number of taps.
        dilations: One residual unit each.
        kind: 1: each unit is a dilated convolution followed by a plain one; 2: the dilated one
            alone.
        weight_norm: Weight normalisation on or off.
        activation: Before every convolution: "leaky_relu", or "snake" or "snakebeta" without
            aliases (BigVGAN's, arXiv:2206.04658).
        snake_logscale: Whether a snake's parameters are logarithms.
    """

    def __init__(
        self,
        channels,
        kernel_size,
        dilations,
        kind,
        weight_norm=True,
        activation="leaky_relu",
        snake_logscale=True,
        **arguments,
    ):
        super().__init__(**arguments)
        self.channels = channels
        self.kernel_size = kernel_size
        self.dilations = tuple(dilations)
        self.kind = kind
        self.weight_norm = weight_norm
        self.activation = activation
        self.snake_logscale = snake_logscale
        self.units = []
        self.snakes = []  # as the units, one before every convolution
        for dilation in self.dilations:
            rates = (dilation, 1) if kind == 1 else (dilation,)
            self.units.append(
                [
                    conv1d(
                        channels,
                        kernel_size,
                        dilation_rate=rate,
                        weight_norm=weight_norm,
                        dtype=self.dtype_policy,
                    )
                    for rate in rates
                ]
            )
            if activation != "leaky_relu":
                self.snakes.append(
                    [
                        AntiAliasedSnake(activation, snake_logscale, dtype=self.dtype_policy)
                        for _ in rates
                    ]
                )

    @property
    def reach(self):
        """Samples on each side that an output depends on."""
        plain = len(self.dilations) if self.kind == 1 else 0
        convolutions = (self.kernel_size - 1) // 2 * (sum(self.dilations) + plain)
        return convolutions + sum(snake.reach for unit in self.snakes for snake in unit)

    def build(self, input_shape):
        for unit in (*self.units, *self.snakes):
            for layer in unit:
                layer.build(input_shape)
        self.built = True

    def call(self, x):
        for i, unit in enumerate(self.units):
            y = x
            activations = self.snakes[i] if self.snakes else [leaky_relu] * len(unit)
            for activation, convolution in zip(activations, unit, strict=True):
                y = convolution(activation(y))
            x = x + y
        return x

    def get_config(self):
        return super().get_config() | {
            "channels": self.channels,
            "kernel_size": self.kernel_size,
            "dilations": self.dilations,
            "kind": self.kind,
            "weight_norm": self.weight_norm,
            "activation": self.activation,
            "snake_logscale": self.snake_logscale,
        }
