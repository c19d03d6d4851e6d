"""Vocos (Siuzdak, arXiv:2306.00814; github.com/gemelo-ai/vocos)."""

import dataclasses

import keras

from vocoder.generators.base import Generator
from vocoder.heads import build_head
from vocoder.kinds import check_whole
from vocoder.layers.convnext import KERNEL_SIZE, ConvNeXtBlock, initial_kernel, layer_norm
from vocoder.layers.weight_norm import default_kernel

MOST_UNITS, MOST_LAYERS = 2**16, 2**8


@keras.saving.register_keras_serializable("vocoder")
class Vocos(Generator):
    """ConvNeXt blocks at the mel's frame rate, then a head that makes all the samples.

    (batch, frames, n_mels) -> (batch, frames * hop_length), float32. The defaults are the
    published network for mels, 13.5 M parameters.

    Args:
        dim: Channels of the blocks.
        intermediate_dim: Units between the dense layers of a block.
        num_layers: Blocks.
        head: What makes the samples, `{name: HEAD, argument: value, ...}` of `vocoder.heads`; None
            for the original's, istft.
        prior: "mel" or None, as in every generator; the original has none.
        n_mels: Bands of the mel; None for those of `audio`.
        audio: Fields of `vocoder.audio.settings.AudioConfig`, which travel with the model, or None.
        name, dtype: As in every Keras model; dtype is a policy such as "mixed_bfloat16".

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        dim=512,
        intermediate_dim=1536,
        num_layers=8,
        head=None,
        prior=None,
        n_mels=None,
        audio=None,
        name=None,
        dtype=None,
    ):
        check_whole("dim", dim, 1, MOST_UNITS)
        check_whole("intermediate_dim", intermediate_dim, 1, MOST_UNITS)
        check_whole("num_layers", num_layers, 1, MOST_LAYERS)
        head = build_head({"name": "istft"} if head is None else head, prior)
        reason = f"head.hop_length: {head.hop_length}"
        super().__init__(
            audio, n_mels, head.hop_length, reason, "head.hop_length={}".format, head, prior,
            name=name, dtype=dtype,
        )  # fmt: skip
        self.dim = dim
        self.intermediate_dim = intermediate_dim
        self.num_layers = num_layers

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
        self.out = keras.layers.Dense(
            self.head.channels, kernel_initializer=default_kernel(), dtype="float32"
        )

    def build(self, input_shape):
        self.embed.build((None, None, self.n_mels))
        for layer in (self.norm, *self.blocks, self.final_norm, self.out):
            layer.build((None, None, self.dim))
        self.head.build((None, None, self.head.channels))
        self.built = True

    def call(self, features):
        x = self.norm(self.embed(features["mel"]))
        for block in self.blocks:
            x = self.remat(block, x)
        return self.samples(self.out(self.final_norm(x)), features)

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
            "head": self.head.get_config(),
            "prior": self.prior,
            "n_mels": self.n_mels,
            "audio": dataclasses.asdict(self.audio) if self.audio else None,
        }
