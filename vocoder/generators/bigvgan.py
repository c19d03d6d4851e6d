"""BigVGAN's generator (Lee et al., arXiv:2206.04658; github.com/NVIDIA/BigVGAN)."""

import keras

from vocoder.generators.upsampling import UpsamplingGenerator
from vocoder.kinds import check_bool
from vocoder.layers.snake import AntiAliasedSnake


@keras.saving.register_keras_serializable("vocoder")
class BigVGAN(UpsamplingGenerator):
    """HiFi-GAN's stages with periodic activations, whose aliases are filtered out.

    (batch, frames, n_mels) -> (batch, frames * hop_length), float32. The defaults are BigVGAN-base
    at 22 kHz.

    Args:
        upsample_rates: Factor of each stage; their product is the hop length of the mel.
        upsample_kernel_sizes: Taps of each transposed convolution; as odd or even as its rate.
        upsample_initial_channel: Channels before the first stage; each stage halves them.
        resblock: 1 or 2, the kind of residual block.
        resblock_kernel_sizes: One block for each, in parallel.
        resblock_dilation_sizes: Dilations of each of these blocks.
        activation: "snake" or "snakebeta".
        snake_logscale: Whether the activation's parameters are logarithms.
        head: `{name: HEAD, argument: value, ...}` of `vocoder.heads`; None for the original's,
            waveform with a tanh. The activation of v2's is "clip".
        prior: "mel" or None, as in every generator; the original has none.
        use_bias_at_final: Whether the last convolution has a bias.
        n_mels: Bands of the mel; None for those of `audio`.
        audio: Fields of `vocoder.audio.settings.AudioConfig`, which travel with the model, or None.
        weight_norm: Off in a model for inference (`folded`).
        uneven_stages: For imported networks alone: see `UpsamplingGenerator`.
        name, dtype: As in every Keras model; dtype is a policy such as "mixed_bfloat16".

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        upsample_rates=(8, 8, 2, 2),
        upsample_kernel_sizes=(16, 16, 4, 4),
        upsample_initial_channel=512,
        resblock=1,
        resblock_kernel_sizes=(3, 7, 11),
        resblock_dilation_sizes=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
        activation="snakebeta",
        snake_logscale=True,
        head=None,
        prior=None,
        use_bias_at_final=True,
        n_mels=None,
        audio=None,
        weight_norm=True,
        uneven_stages=False,
        name=None,
        dtype=None,
    ):
        if activation not in ("snake", "snakebeta"):
            raise ValueError(f'activation: must be "snake" or "snakebeta", not {activation!r}')
        check_bool("snake_logscale", snake_logscale)
        check_bool("use_bias_at_final", use_bias_at_final)
        super().__init__(
            upsample_rates,
            upsample_kernel_sizes,
            upsample_initial_channel,
            resblock,
            resblock_kernel_sizes,
            resblock_dilation_sizes,
            activation=activation,
            snake_logscale=snake_logscale,
            post_bias=use_bias_at_final,
            head=head,
            prior=prior,
            n_mels=n_mels,
            audio=audio,
            weight_norm=weight_norm,
            uneven_stages=uneven_stages,
            name=name,
            dtype=dtype,
        )
        self.activation = activation
        self.snake_logscale = snake_logscale
        self.use_bias_at_final = use_bias_at_final
        self.activation_post = AntiAliasedSnake(
            activation, snake_logscale, dtype=self.dtype_policy, name="activation_post"
        )

    def build(self, input_shape):
        self.activation_post.build((None, None, self.last_channels))
        super().build(input_shape)

    def call(self, features):
        x = self.conv_pre(features["mel"])
        for upsampling, blocks in zip(self.upsamplings, self.blocks, strict=True):
            x = self.averaged(blocks, self.raised(upsampling, x))
        x = self.conv_post(self.activation_post(x))
        return self.trimmed(self.samples(x, features), features["mel"])

    @property
    def post_reach(self):
        return 3 + self.activation_post.reach  # conv_post after it

    def get_config(self):
        return super().get_config() | {
            "activation": self.activation,
            "snake_logscale": self.snake_logscale,
            "use_bias_at_final": self.use_bias_at_final,
        }
