"""The head of networks that make samples themselves."""

import keras
from keras import ops

from vocoder.heads.base import Head


@keras.saving.register_keras_serializable("vocoder")
class Waveform(Head):
    """Bounds samples, the one channel that there is.

    Args:
        activation: "tanh", as in HiFi-GAN (arXiv:2010.05646), or "clip": cut off at -1 and 1, as in
            BigVGAN v2.

    Raises:
        ValueError: "activation: reason".
    """

    channels = hop_length = 1

    def __init__(self, activation="tanh", name="waveform"):
        super().__init__(name)
        if activation not in ("tanh", "clip"):
            raise ValueError(f'activation: must be "tanh" or "clip", not {activation!r}')
        self.activation = activation

    def call(self, x):
        x = x[..., 0]
        return ops.tanh(x) if self.activation == "tanh" else ops.clip(x, -1.0, 1.0)

    def get_config(self):
        return super().get_config() | {"activation": self.activation}
