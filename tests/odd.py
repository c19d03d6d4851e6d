"""A small generator with what ours have not, and a loss that goes wrong when it is told to."""

import keras
import tensorflow as tf
from keras import ops

from vocoder.generators.base import Generator


class OddGenerator(Generator):
    """Batch statistics, a seed, a regulariser, an `add_loss`, and a variable that does nothing.

    The regulariser makes sum(kernel**2) / 10 of it, `add_loss` the mean of the squared waveform.
    """

    def __init__(self, hop_length=16, n_mels=10, adds=True, idle=True, dtype=None):
        super().__init__(None, n_mels, hop_length, "hop_length", name="odd", dtype=dtype)
        self.adds = adds
        self.idle = idle
        self.norm = keras.layers.BatchNormalization(dtype=dtype)
        self.drop = keras.layers.Dropout(0.1, seed=1, dtype=dtype)
        regulariser = keras.regularizers.L2(0.1) if adds else None
        self.out = keras.layers.Dense(hop_length, kernel_regularizer=regulariser, dtype=dtype)

    def build(self, input_shape):
        self.norm.build(input_shape["mel"])
        self.out.build(input_shape["mel"])
        if self.idle:
            self.unused = self.add_weight(shape=(3,), initializer="ones", name="unused")
        self.built = True

    def call(self, features, training=False):
        mel = features["mel"]
        x = self.drop(self.norm(mel, training=training), training=training)
        waveform = ops.cast(ops.tanh(self.out(x)), "float32")
        waveform = ops.reshape(waveform, (ops.shape(mel)[0], -1))
        if self.adds:
            self.add_loss(ops.mean(waveform**2))
        return waveform

    def get_config(self):
        return {
            "hop_length": self.hop_length, "n_mels": self.n_mels, "adds": self.adds,
            "idle": self.idle, "dtype": self.dtype_policy.name,
        }  # fmt: skip


class Spoilt(keras.losses.Loss):
    """Another loss, times `forward`, with a gradient times `backward`; both may be changed."""

    def __init__(self, loss):
        super().__init__(name=f"spoilt_{loss.name}")
        self.loss = loss
        self.forward = self.backward = 1.0

    def call(self, y_true, y_pred):
        @tf.custom_gradient
        def spoil(value):
            return value * self.forward, lambda gradient: gradient * self.backward

        return spoil(self.loss(y_true, y_pred))
