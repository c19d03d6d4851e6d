"""HiFi-GAN's generator (Kong et al., arXiv:2010.05646; github.com/jik876/hifi-gan)."""

import keras

from vocoder.generators.upsampling import UpsamplingGenerator
from vocoder.layers.residual import leaky_relu


@keras.saving.register_keras_serializable("vocoder")
class HiFiGAN(UpsamplingGenerator):
    """Transposed convolutions, each followed by residual blocks of several kernels averaged.

    (batch, frames, n_mels) -> (batch, frames * hop_length), float32.

    With the head istft there are fewer upsampling stages, and an inverse STFT makes the rest of the
    way, as in iSTFTNet (Kaneko et al., arXiv:2203.02395). The defaults are HiFi-GAN V1.

    Args:
        upsample_rates: Factor of each stage; their product, times the `hop_length` of the head, is
            that of the mel.
        upsample_kernel_sizes: Taps of each transposed convolution; as odd or even as its rate.
        upsample_initial_channel: Channels before the first stage; each stage halves them.
        resblock: 1 or 2, the kind of residual block.
        resblock_kernel_sizes: One block for each, in parallel.
        resblock_dilation_sizes: Dilations of each of these blocks.
        head: What makes the samples, `{name: HEAD, argument: value, ...}` of `vocoder.heads`; None
            for the original's, waveform.
        prior: "mel" or None, as in every generator; the original has none.
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
        head=None,
        prior=None,
        n_mels=None,
        audio=None,
        weight_norm=True,
        uneven_stages=False,
        name=None,
        dtype=None,
    ):
        super().__init__(
            upsample_rates,
            upsample_kernel_sizes,
            upsample_initial_channel,
            resblock,
            resblock_kernel_sizes,
            resblock_dilation_sizes,
            head=head,
            prior=prior,
            n_mels=n_mels,
            audio=audio,
            weight_norm=weight_norm,
            uneven_stages=uneven_stages,
            name=name,
            dtype=dtype,
        )

    def call(self, features):
        x = self.conv_pre(features["mel"])
        for upsampling, blocks in zip(self.upsamplings, self.blocks, strict=True):
            x = self.raised(upsampling, leaky_relu(x))
            x = self.averaged(blocks, x)
        x = self.conv_post(leaky_relu(x, slope=0.01))  # 0.01 here alone, as in the original
        return self.trimmed(self.samples(x, features), features["mel"])

    @property
    def post_reach(self):
        return 3  # conv_post
