"""HiFi-GAN's generator (Kong et al., arXiv:2010.05646; github.com/jik876/hifi-gan)."""

import dataclasses
import math

import keras

from vocoder.generators.base import Generator
from vocoder.layers.istft import ISTFT
from vocoder.layers.residual import ResidualBlock, leaky_relu
from vocoder.layers.weight_norm import conv1d, conv1d_transpose


@keras.saving.register_keras_serializable("vocoder")
class HiFiGAN(Generator):
    """Transposed convolutions, each followed by residual blocks of several kernels averaged.

    (batch, frames, n_mels) -> (batch, frames * hop_length), float32.

    With `istft_n_fft` there are fewer upsampling stages, and an inverse STFT makes the rest of the
    way, as in iSTFTNet (Kaneko et al., arXiv:2203.02395). The defaults are HiFi-GAN V1.

    Args:
        upsample_rates: Factor of each stage; their product, times `istft_hop_length` if there is
            one, is the hop length of the mel.
        upsample_kernel_sizes: Taps of each transposed convolution; as odd or even as its rate.
        upsample_initial_channel: Channels before the first stage; each stage halves them.
        resblock: 1 or 2, the kind of residual block.
        resblock_kernel_sizes: One block for each, in parallel.
        resblock_dilation_sizes: Dilations of each of these blocks.
        istft_n_fft, istft_hop_length: Samples; both or neither.
        istft_phase: "free" or "sine", as in `vocoder.layers.istft.ISTFT`.
        n_mels: Bands of the mel; None for those of `audio`.
        audio: Fields of `vocoder.config.AudioConfig`, which travel with the saved model, or None.
        weight_norm: Off in a model for inference (`folded`).
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
        istft_n_fft=None,
        istft_hop_length=None,
        istft_phase="free",
        n_mels=None,
        audio=None,
        weight_norm=True,
        name=None,
        dtype=None,
    ):
        _check(
            upsample_rates,
            upsample_kernel_sizes,
            upsample_initial_channel,
            resblock,
            resblock_kernel_sizes,
            resblock_dilation_sizes,
            istft_n_fft,
            istft_hop_length,
        )
        hop_length = math.prod(upsample_rates) * (istft_hop_length or 1)
        product = " x ".join(map(str, upsample_rates))
        if istft_n_fft:
            product += f" with istft_hop_length {istft_hop_length}"
        super().__init__(
            audio, n_mels, hop_length, f"upsample_rates: {product}", name=name, dtype=dtype
        )
        self.upsample_rates = tuple(upsample_rates)
        self.upsample_kernel_sizes = tuple(upsample_kernel_sizes)
        self.upsample_initial_channel = upsample_initial_channel
        self.resblock = resblock
        self.resblock_kernel_sizes = tuple(resblock_kernel_sizes)
        self.resblock_dilation_sizes = tuple(map(tuple, resblock_dilation_sizes))
        self.istft_n_fft = istft_n_fft
        self.istft_hop_length = istft_hop_length
        self.istft_phase = istft_phase
        self.weight_norm = weight_norm

        common = {"weight_norm": weight_norm, "dtype": self.dtype_policy}
        self.conv_pre = conv1d(upsample_initial_channel, 7, name="conv_pre", **common)
        self.upsamplings = []
        self.blocks = []
        stages = zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True)
        for stage, (rate, kernel_size) in enumerate(stages, start=1):
            channels = upsample_initial_channel // 2**stage
            self.upsamplings.append(conv1d_transpose(channels, kernel_size, rate, **common))
            self.blocks.append(
                [
                    ResidualBlock(channels, kernel_size, dilations, resblock, **common)
                    for kernel_size, dilations in zip(
                        self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True
                    )
                ]
            )
        self.conv_post = conv1d(
            istft_n_fft + 2 if istft_n_fft else 1, 7, name="conv_post", **common
        )
        self.head = (
            ISTFT(istft_n_fft, istft_hop_length, phase=istft_phase)
            if istft_n_fft
            else keras.layers.Activation("tanh", dtype="float32")
        )

    def build(self, input_shape):
        channels = self.upsample_initial_channel
        self.conv_pre.build((None, None, self.n_mels))
        for upsampling, blocks in zip(self.upsamplings, self.blocks, strict=True):
            upsampling.build((None, None, channels))
            channels //= 2
            for block in blocks:
                block.build((None, None, channels))
        self.conv_post.build((None, None, channels))
        self.built = True

    def call(self, mel):
        x = self.conv_pre(mel)
        for upsampling, blocks in zip(self.upsamplings, self.blocks, strict=True):
            x = upsampling(leaky_relu(x))
            x = sum(block(x) for block in blocks) / len(blocks)
        x = self.conv_post(leaky_relu(x, slope=0.01))  # 0.01 here alone, as in the original
        x = self.head(x)
        return x if self.istft_n_fft else x[..., 0]

    @property
    def receptive_field(self):
        # From the waveform back to the mel, in samples of each stage.
        reach = self.head.reach if self.istft_n_fft else 0
        reach += 3  # conv_post
        for upsampling, blocks in zip(self.upsamplings[::-1], self.blocks[::-1], strict=True):
            reach += max(block.reach for block in blocks)
            (rate,), (kernel_size,) = upsampling.strides, upsampling.kernel_size
            reach = -(-(reach + (kernel_size + rate) // 2 - 1) // rate)
        return reach + 3  # conv_pre

    def get_config(self):
        # The network's own arguments; the compiled state is no business of a generator.
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "upsample_rates": self.upsample_rates,
            "upsample_kernel_sizes": self.upsample_kernel_sizes,
            "upsample_initial_channel": self.upsample_initial_channel,
            "resblock": self.resblock,
            "resblock_kernel_sizes": self.resblock_kernel_sizes,
            "resblock_dilation_sizes": self.resblock_dilation_sizes,
            "istft_n_fft": self.istft_n_fft,
            "istft_hop_length": self.istft_hop_length,
            "istft_phase": self.istft_phase,
            "n_mels": self.n_mels,
            "audio": dataclasses.asdict(self.audio) if self.audio else None,
            "weight_norm": self.weight_norm,
        }


def _check(rates, kernels, channels, resblock, block_kernels, dilations, n_fft, hop_length):
    if not rates or any(rate < 1 for rate in rates):
        raise ValueError(f"upsample_rates: {list(rates)} must be one or more factors of at least 1")
    if len(kernels) != len(rates):
        raise ValueError(
            f"upsample_kernel_sizes: {len(kernels)} of them for {len(rates)} upsample_rates"
        )
    for rate, kernel in zip(rates, kernels, strict=True):
        if kernel < rate or (kernel - rate) % 2:
            raise ValueError(
                f"upsample_kernel_sizes: {kernel} must be the rate {rate} plus an even number"
            )
    if channels % 2 ** len(rates):
        raise ValueError(f"upsample_initial_channel: {channels} can't be halved {len(rates)} times")
    if resblock not in (1, 2):
        raise ValueError(f"resblock: must be 1 or 2, not {resblock!r}")
    if not block_kernels or any(kernel % 2 == 0 for kernel in block_kernels):
        raise ValueError(f"resblock_kernel_sizes: {list(block_kernels)} must be odd numbers")
    if len(dilations) != len(block_kernels):
        raise ValueError(
            f"resblock_dilation_sizes: {len(dilations)} lists for {len(block_kernels)} "
            "resblock_kernel_sizes"
        )
    if (n_fft is None) != (hop_length is None):
        raise ValueError("istft_n_fft: give both istft_n_fft and istft_hop_length, or neither")
