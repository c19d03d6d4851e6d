"""What HiFi-GAN and BigVGAN share: stages that raise the rate, each followed by residual blocks."""

import dataclasses
import math

from vocoder.generators.base import Generator
from vocoder.layers.residual import ResidualBlock
from vocoder.layers.weight_norm import conv1d, conv1d_transpose


class UpsamplingGenerator(Generator):
    """Transposed convolutions, each followed by residual blocks of several kernels averaged.

    A subclass says in `call` what comes between these layers, and in `post_reach` what comes after
    the last stage.

    Args:
        upsample_rates: Factor of each stage; their product, times `head_hop_length`, is the hop
            length of the mel.
        upsample_kernel_sizes: Taps of each transposed convolution; as odd or even as its rate.
        upsample_initial_channel: Channels before the first stage; each stage halves them.
        resblock: 1 or 2, the kind of residual block.
        resblock_kernel_sizes: One block for each, in parallel.
        resblock_dilation_sizes: Dilations of each of these blocks.
        activation, snake_logscale: Of the residual blocks.
        post_channels, post_bias: Channels after the last convolution, and whether it has a bias.
        head_hop_length: Samples that the head makes of each of the last stage's; None for 1.
        n_mels, audio, weight_norm, name, dtype: As in every generator.

    Raises:
        ValueError: "argument: reason".
    """

    def __init__(
        self,
        upsample_rates,
        upsample_kernel_sizes,
        upsample_initial_channel,
        resblock,
        resblock_kernel_sizes,
        resblock_dilation_sizes,
        activation="leaky_relu",
        snake_logscale=True,
        post_channels=1,
        post_bias=True,
        head_hop_length=None,
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
        )
        hop_length = math.prod(upsample_rates) * (head_hop_length or 1)
        product = " x ".join(map(str, upsample_rates))
        if head_hop_length:
            product += f" with istft_hop_length {head_hop_length}"
        super().__init__(
            audio, n_mels, hop_length, f"upsample_rates: {product}", name=name, dtype=dtype
        )
        self.upsample_rates = tuple(upsample_rates)
        self.upsample_kernel_sizes = tuple(upsample_kernel_sizes)
        self.upsample_initial_channel = upsample_initial_channel
        self.resblock = resblock
        self.resblock_kernel_sizes = tuple(resblock_kernel_sizes)
        self.resblock_dilation_sizes = tuple(map(tuple, resblock_dilation_sizes))
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
                    ResidualBlock(
                        channels,
                        kernel_size,
                        dilations,
                        resblock,
                        activation=activation,
                        snake_logscale=snake_logscale,
                        **common,
                    )
                    for kernel_size, dilations in zip(
                        self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True
                    )
                ]
            )
        self.conv_post = conv1d(post_channels, 7, use_bias=post_bias, name="conv_post", **common)

    @property
    def last_channels(self) -> int:
        """Channels after the last stage."""
        return self.upsample_initial_channel // 2 ** len(self.upsample_rates)

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

    @property
    def post_reach(self) -> int:
        """Samples of the last stage on each side that the waveform depends on."""
        raise NotImplementedError

    def averaged(self, blocks, x):
        """The mean of what the blocks make of `x`."""
        return sum(self.through(block, x) for block in blocks) / len(blocks)

    @property
    def receptive_field(self):
        # From the waveform back to the mel, in samples of each stage.
        reach = self.post_reach
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
            "n_mels": self.n_mels,
            "audio": dataclasses.asdict(self.audio) if self.audio else None,
            "weight_norm": self.weight_norm,
        }


def _check(rates, kernels, channels, resblock, block_kernels, dilations):
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
