"""An inverse STFT of magnitudes that the network makes, with phases that fit them."""

import keras
from keras import ops

from vocoder.audio.settings import frame_margins
from vocoder.audio.stft import inverse_stft, stft
from vocoder.heads.spectral import SpectralHead
from vocoder.kinds import check_whole

MOMENTUM = 0.99  # of fast Griffin-Lim, as recommended there and in librosa
MOST_ITERATIONS = 1000


@keras.saving.register_keras_serializable("vocoder")
class GriffinLim(SpectralHead):
    """Phases that make the frames fit one another, by fast Griffin-Lim from phases of zero.

    Perraudin, Balazs and Sondergaard 2013. To the gradient the phases are constants, so that a
    network learns magnitudes which are those of what is heard.

    Args:
        n_fft, hop_length, padding, magnitude_limit: As in `SpectralHead`.
        iterations: In inference.
        training_iterations: In training, where fewer will do.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        n_fft=1024,
        hop_length=256,
        padding="same",
        iterations=32,
        training_iterations=8,
        magnitude_limit=100.0,
        name="griffin_lim",
    ):
        super().__init__(n_fft, hop_length, padding, magnitude_limit, name)
        check_whole("iterations", iterations, 1, MOST_ITERATIONS)
        check_whole("training_iterations", training_iterations, 1, MOST_ITERATIONS)
        self.iterations = iterations
        self.training_iterations = training_iterations
        self.channels = self.bins

    @property
    def reach(self):
        overlapping = self.n_fft // self.hop_length - 1
        return max(self.iterations, self.training_iterations) * overlapping + super().reach

    def call(self, x, training=False):
        magnitude = self.magnitude(x)
        iterations = self.training_iterations if training else self.iterations
        cosine, sine = self._phases(ops.stop_gradient(magnitude), iterations)
        real, imaginary = magnitude * cosine, magnitude * sine
        return inverse_stft(real, imaginary, self.hop_length, self.padding)

    def _phases(self, magnitude, iterations):
        """Cosines and sines of the phases."""
        lengths = self.n_fft, self.hop_length
        around = [[0, 0], frame_margins(*lengths, self.padding)]
        cosine, sine = ops.ones_like(magnitude), ops.zeros_like(magnitude)
        before = None
        for _ in range(iterations):
            spectrum = magnitude * cosine, magnitude * sine
            wave = inverse_stft(*spectrum, self.hop_length, self.padding, with_fft=True)
            now = stft(ops.pad(wave, around), *lengths, self.n_fft, center=False)
            # Ahead of where it is, by how far it has come.
            real, imaginary = (
                n + MOMENTUM * (n - b) for n, b in zip(now, before or now, strict=True)
            )
            before = now
            size = ops.sqrt(ops.square(real) + ops.square(imaginary) + 1e-10)
            cosine, sine = real / size, imaginary / size
        return ops.stop_gradient(cosine), ops.stop_gradient(sine)

    def get_config(self):
        return super().get_config() | {
            "iterations": self.iterations,
            "training_iterations": self.training_iterations,
        }
