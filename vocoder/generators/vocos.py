"""Vocos (Siuzdak, arXiv:2306.00814; github.com/gemelo-ai/vocos)."""

import contextlib
import dataclasses
import math

import keras
from keras import ops

from vocoder.audio.mel import mel_to_magnitude
from vocoder.config import check_bool, check_whole
from vocoder.generators.base import Generator
from vocoder.layers.convnext import KERNEL_SIZE, ConvNeXtBlock, initial_kernel, layer_norm
from vocoder.layers.istft import ISTFT, GriffinLim, check_istft
from vocoder.layers.weight_norm import default_kernel

MAGNITUDE_LIMIT = 100.0  # the original's "safeguard"
MOST_UNITS, MOST_LAYERS, MOST_ITERATIONS = 2**16, 2**8, 1000


@keras.saving.register_keras_serializable("vocoder")
class Vocos(Generator):
    """ConvNeXt blocks at the mel's frame rate, then an inverse STFT that makes all the samples.

    (batch, frames, n_mels) -> (batch, frames * hop_length), float32. The defaults are the
    published network for mels, 13.5 M parameters.

    Args:
        dim: Channels of the blocks.
        intermediate_dim: Units between the dense layers of a block.
        num_layers: Blocks.
        istft_n_fft, istft_hop_length: Samples; the hop length is that of the mel.
        istft_padding: "same" or "center", best as in the mel (`audio.padding`). With "center" the
            original makes (frames - 1) * hop_length samples, up to where its last frame is centred.
            Our mels leave that frame out, so here the last of the others makes one more hop.
        mel_prior: Whether the network's log magnitudes are added to those that the mel stands for
            (`vocoder.audio.mel.mel_to_magnitude`), instead of learning them from nothing. Needs
            `audio`, and its window as `istft_n_fft`. The original has no such thing.
        griffin_lim_iterations: So many times are the phases made to fit one another, beginning
            with zero, in which case the network makes magnitudes alone. None, as in the original:
            it makes the phases too.
        griffin_lim_training_iterations: The same in training, where fewer will do.
        n_mels: Bands of the mel; None for those of `audio`.
        audio: Fields of `vocoder.config.AudioConfig`, which travel with the saved model, or None.
        name, dtype: As in every Keras model; dtype is a policy such as "mixed_bfloat16". The head
            is in float32 whatever it says: half precision is too coarse for a phase.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        dim=512,
        intermediate_dim=1536,
        num_layers=8,
        istft_n_fft=1024,
        istft_hop_length=256,
        istft_padding="same",
        mel_prior=False,
        griffin_lim_iterations=None,
        griffin_lim_training_iterations=8,
        n_mels=None,
        audio=None,
        name=None,
        dtype=None,
    ):
        check_whole("dim", dim, 1, MOST_UNITS)
        check_whole("intermediate_dim", intermediate_dim, 1, MOST_UNITS)
        check_whole("num_layers", num_layers, 1, MOST_LAYERS)
        check_bool("mel_prior", mel_prior)
        if griffin_lim_iterations is not None:
            check_whole("griffin_lim_iterations", griffin_lim_iterations, 1, MOST_ITERATIONS)
        check_whole(
            "griffin_lim_training_iterations", griffin_lim_training_iterations, 1, MOST_ITERATIONS
        )
        without = " with mel_prior=false" if mel_prior else ""
        check_istft(istft_n_fft, istft_hop_length, istft_padding, without)
        reason = f"istft_hop_length: {istft_hop_length}"
        super().__init__(
            audio, n_mels, istft_hop_length, reason, "istft_hop_length={}".format, name=name,
            dtype=dtype,
        )  # fmt: skip
        if mel_prior:
            self._check_prior(istft_n_fft, istft_hop_length, istft_padding)
        self.dim = dim
        self.intermediate_dim = intermediate_dim
        self.num_layers = num_layers
        self.istft_n_fft = istft_n_fft
        self.istft_hop_length = istft_hop_length
        self.istft_padding = istft_padding
        self.mel_prior = mel_prior
        self.griffin_lim_iterations = griffin_lim_iterations
        self.griffin_lim_training_iterations = griffin_lim_training_iterations

        self.embed = keras.layers.Conv1D(
            dim,
            KERNEL_SIZE,
            padding="same",
            kernel_initializer=initial_kernel(),
            dtype=self.dtype_policy,
        )
        self.norm = layer_norm(self.dtype_policy)
        self.blocks = [
            ConvNeXtBlock(intermediate_dim, 1 / num_layers, dtype=self.dtype_policy)
            for _ in range(num_layers)
        ]
        self.final_norm = layer_norm(self.dtype_policy)
        head = {
            "n_fft": istft_n_fft,
            "hop_length": istft_hop_length,
            "padding": istft_padding,
            "log_magnitude_limit": math.log(MAGNITUDE_LIMIT),
        }
        if griffin_lim_iterations is None:
            self.head = ISTFT(**head)
        else:
            self.head = GriffinLim(
                **head,
                iterations=griffin_lim_iterations,
                training_iterations=griffin_lim_training_iterations,
            )
        self.out = keras.layers.Dense(
            self.head.channels, kernel_initializer=default_kernel(), dtype="float32"
        )

    def _check_prior(self, n_fft, hop_length, padding):
        windows = {self.audio.n_fft, self.audio.win_length} if self.audio else set()
        if windows == {n_fft}:
            return
        way_out = "mel_prior=false would do"
        if len(windows) == 1:
            with contextlib.suppress(ValueError):
                check_istft(*windows, hop_length, padding)
                way_out = f"istft_n_fft={self.audio.n_fft} or {way_out}"
        raise ValueError(
            "mel_prior: needs an audio.n_fft and audio.win_length like istft_n_fft "
            f"({n_fft}); {way_out}"
        )

    def build(self, input_shape):
        self.embed.build((None, None, self.n_mels))
        for layer in (self.norm, *self.blocks, self.final_norm, self.out):
            layer.build((None, None, self.dim))
        self.built = True

    def call(self, features):
        mel = features["mel"]
        x = self.norm(self.embed(mel))
        for block in self.blocks:
            x = self.through(block, x)
        x = self.out(self.final_norm(x))
        if self.mel_prior:
            prior = ops.log(mel_to_magnitude(ops.cast(mel, "float32"), self.audio))
            phases = self.head.channels - self.head.bins
            x = x + ops.pad(prior, [[0, 0], [0, 0], [0, phases]])
        return self.head(x)

    @property
    def receptive_field(self):
        convolutions = KERNEL_SIZE // 2 + sum(block.reach for block in self.blocks)
        reach = convolutions + self.head.reach
        return reach, reach

    def get_config(self):
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "dim": self.dim,
            "intermediate_dim": self.intermediate_dim,
            "num_layers": self.num_layers,
            "istft_n_fft": self.istft_n_fft,
            "istft_hop_length": self.istft_hop_length,
            "istft_padding": self.istft_padding,
            "mel_prior": self.mel_prior,
            "griffin_lim_iterations": self.griffin_lim_iterations,
            "griffin_lim_training_iterations": self.griffin_lim_training_iterations,
            "n_mels": self.n_mels,
            "audio": dataclasses.asdict(self.audio) if self.audio else None,
        }
