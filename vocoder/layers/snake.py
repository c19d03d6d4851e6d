"""The anti-aliased periodic activations of BigVGAN (Lee et al., arXiv:2206.04658)."""

import keras
import numpy as np
from keras import ops
from scipy import signal

TAPS = 12
# Outputs that one matrix product makes. By trial on a CPU, of 16, 32 and 64, as fast as a depthwise
# convolution in TensorFlow's graph and several times as fast with XLA, which has no good one.
BLOCK = 16


def kaiser_sinc() -> np.ndarray:
    """The low-pass filter at a quarter of the rate: a sinc under a Kaiser window, (TAPS,).

    The window has the shape that Kaiser's formula gives for half as many taps.
    """
    beta = signal.kaiser_beta(signal.kaiser_atten(TAPS // 2, 1.2))
    return signal.firwin(TAPS, 0.5, window=("kaiser", beta))


def _upsampling_matrix() -> np.ndarray:
    """BLOCK samples and 3 on each side -> 2 * BLOCK samples between them."""
    taps, matrix = kaiser_sinc(), np.zeros((2 * BLOCK, BLOCK + 6))
    for i in range(BLOCK):
        # Every other sample of the doubled rate is 0, so that every other tap counts, twice.
        matrix[2 * i, i : i + 6] = 2 * taps[::2]
        matrix[2 * i + 1, i + 1 : i + 7] = 2 * taps[1::2]
    return matrix


def _downsampling_matrix() -> np.ndarray:
    """2 * BLOCK samples, 5 before and 6 behind -> BLOCK samples, every other one filtered."""
    taps, matrix = kaiser_sinc(), np.zeros((BLOCK, 2 * BLOCK + TAPS - 1))
    for i in range(BLOCK):
        matrix[i, 2 * i : 2 * i + TAPS] = taps
    return matrix


def _filtered(x, matrix, step, left, right):
    """A matrix along the time of (batch, time, channels), block after block.

    Args:
        x: The signal; beyond its ends the first and the last sample repeat.
        matrix: (outputs, left + step + right), of one block of `step` samples.
    """
    _, time, channels = ops.shape(x)
    missing = -time % step  # to whole blocks; what is made of it is cut off again
    count, overlap = (time + missing) // step, left + right
    begin, end = ops.tile(x[:, :1], (1, left, 1)), ops.tile(x[:, -1:], (1, right, 1))
    whole = ops.concatenate([begin, x, end], axis=1)
    whole = ops.pad(whole, [[0, 0], [0, missing + step - overlap], [0, 0]])
    blocks = ops.reshape(whole, (-1, count + 1, step, channels))
    blocks = ops.concatenate([blocks[:, :-1], blocks[:, 1:, :overlap]], axis=2)
    y = ops.matmul(ops.convert_to_tensor(matrix, dtype=x.dtype), blocks)
    outputs = matrix.shape[0]
    y = ops.reshape(y, (-1, count * outputs, channels))
    return y[:, : time * outputs // step]


@keras.saving.register_keras_serializable("vocoder")
class AntiAliasedSnake(keras.layers.Layer):
    """Snake at twice the rate: x + sin(alpha x)^2 / beta, (batch, time, channels) -> the same.

    What it adds above half of the doubled rate is filtered out, not folded down. The filters are
    Kaiser sincs of 12 taps; beyond the ends, the first and the last sample repeat.

    Args:
        kind: "snake", where beta is alpha, or "snakebeta", where it is a parameter too.
        log_scale: Whether the parameters are the logarithms of alpha and beta.
    """

    reach = 5  # samples on each side that an output depends on

    def __init__(self, kind, log_scale, **arguments):
        super().__init__(**arguments)
        self.kind = kind
        self.log_scale = log_scale

    def build(self, input_shape):
        initial = "zeros" if self.log_scale else "ones"
        shape = (input_shape[-1],)
        self.alpha = self.add_weight(name="alpha", shape=shape, initializer=initial)
        if self.kind == "snakebeta":
            self.beta = self.add_weight(name="beta", shape=shape, initializer=initial)

    def call(self, x):
        x = self._snake(_filtered(x, _upsampling_matrix(), BLOCK, 3, 3))
        return _filtered(x, _downsampling_matrix(), 2 * BLOCK, 5, 6)

    def _snake(self, x):
        alpha = ops.convert_to_tensor(self.alpha)
        beta = ops.convert_to_tensor(self.beta) if self.kind == "snakebeta" else alpha
        if self.log_scale:
            alpha, beta = ops.exp(alpha), ops.exp(beta)
        return x + ops.square(ops.sin(alpha * x)) / (beta + 1e-9)  # the original's epsilon

    def get_config(self):
        return super().get_config() | {"kind": self.kind, "log_scale": self.log_scale}
