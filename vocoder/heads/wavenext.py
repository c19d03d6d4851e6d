"""WaveNeXt's head (Okamoto et al., ASRU 2023)."""

import keras
from keras import ops

from vocoder.heads.base import Head
from vocoder.heads.spectral import MOST_N_FFT
from vocoder.kinds import check_whole
from vocoder.layers.weight_norm import default_kernel


@keras.saving.register_keras_serializable("vocoder")
class WaveNeXt(Head):
    """A linear layer from as many channels as an inverse STFT has to the samples of a hop.

    The linear layer before it, of the paper's two, is the body's last. What is made is cut off at
    -1 and 1.

    Args:
        n_fft: Of the inverse STFT that it stands for: there are n_fft + 2 channels.
        hop_length: Samples.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(self, n_fft=1024, hop_length=256, name="wavenext"):
        super().__init__(name)
        check_whole("n_fft", n_fft, 2, MOST_N_FFT)
        check_whole("hop_length", hop_length, 1, MOST_N_FFT)
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.channels = n_fft + 2
        self.linear = keras.layers.Dense(
            hop_length, use_bias=False, kernel_initializer=default_kernel(), dtype="float32"
        )

    def build(self, input_shape):
        self.linear.build((None, None, self.channels))
        self.built = True

    def call(self, x):
        samples = ops.reshape(self.linear(x), (ops.shape(x)[0], -1))
        return ops.clip(samples, -1.0, 1.0)

    def get_config(self):
        return super().get_config() | {"n_fft": self.n_fft, "hop_length": self.hop_length}
