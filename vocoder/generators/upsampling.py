"""What HiFi-GAN and BigVGAN share: stages that raise the rate, each followed by residual blocks."""

import dataclasses
import math

from keras import ops

from vocoder.audio.settings import MOST_SAMPLES
from vocoder.generators.base import Generator
from vocoder.heads import build_head
from vocoder.kinds import check_bool, check_each, check_list, check_whole, either
from vocoder.layers.residual import ResidualBlock
from vocoder.layers.weight_norm import conv1d, conv1d_transpose


class UpsamplingGenerator(Generator):
    """Transposed convolutions, each followed by residual blocks of several kernels averaged.

    A subclass says in `call` what comes between these layers, and in `post_reach` what comes
    between the last stage and the head.

    Args:
        upsample_rates: Factor of each stage; their product, times that of the head, is the hop
            length of the mel.
        upsample_kernel_sizes: Taps of each transposed convolution; as odd or even as its rate,
            unless `uneven_stages`.
        upsample_initial_channel: Channels before the first stage; each stage halves them.
        resblock: 1 or 2, the kind of residual block.
        resblock_kernel_sizes: One block for each, in parallel.
        resblock_dilation_sizes: Dilations of each of these blocks.
        activation, snake_logscale: Of the residual blocks.
        post_bias: Whether the last convolution, to what the head takes, has a bias.
        head, prior: As in every generator; None for the head `waveform`.
        n_mels, audio, weight_norm, name, dtype: As in every generator.
        uneven_stages: Whether taps may differ from the rate by an odd number. Such a stage makes a
            sample more than the rate says, as HiFi-GAN's code does with PyTorch, and passes it on;
            what is more than `hop_length` samples a frame is cut off the end of the waveform.

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
        post_bias=True,
        head=None,
        prior=None,
        n_mels=None,
        audio=None,
        weight_norm=True,
        uneven_stages=False,
        name=None,
        dtype=None,
    ):
        check_bool("weight_norm", weight_norm)
        check_bool("uneven_stages", uneven_stages)
        _check_stages(
            upsample_rates, upsample_kernel_sizes, upsample_initial_channel, uneven_stages
        )
        _check_blocks(resblock, resblock_kernel_sizes, resblock_dilation_sizes)

        head = build_head({"name": "waveform"} if head is None else head, prior)

        def suggest(hop_length):
            return _stages_for(hop_length, len(upsample_rates), head)

        hop_length = math.prod(upsample_rates) * head.hop_length
        product = " x ".join(map(str, upsample_rates))
        if head.hop_length > 1:
            product += f" with head.hop_length {head.hop_length}"
        reason = f"upsample_rates: {product}"
        super().__init__(
            audio, n_mels, hop_length, reason, suggest, head, prior, name=name, dtype=dtype
        )
        self.upsample_rates = tuple(upsample_rates)
        self.upsample_kernel_sizes = tuple(upsample_kernel_sizes)
        self.upsample_initial_channel = upsample_initial_channel
        self.resblock = resblock
        self.resblock_kernel_sizes = tuple(resblock_kernel_sizes)
        self.resblock_dilation_sizes = tuple(map(tuple, resblock_dilation_sizes))
        self.weight_norm = weight_norm
        self.uneven_stages = uneven_stages

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
        self.conv_post = conv1d(head.channels, 7, use_bias=post_bias, name="conv_post", **common)

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
        self.head.build((None, None, self.head.channels))
        self.built = True

    @property
    def post_reach(self) -> int:
        """Samples of the last stage on each side that what the head takes depends on."""
        raise NotImplementedError

    def raised(self, upsampling, x):
        """What a transposed convolution makes of `x`, with as much cut off at either end."""
        y = upsampling(x)
        if upsampling.padding == "same":
            return y
        (rate,), (taps,) = upsampling.strides, upsampling.kernel_size
        cut = (taps - rate) // 2
        return y[:, cut : ops.shape(y)[1] - cut]

    def trimmed(self, waveform, mel):
        """The waveform without what `uneven_stages` make more."""
        if not self.uneven_stages:
            return waveform
        return waveform[:, : ops.shape(mel)[1] * self.hop_length]

    def averaged(self, blocks, x):
        """The mean of what the blocks make of `x`."""
        return sum(self.remat(block, x) for block in blocks) / len(blocks)

    @property
    def receptive_field(self):
        # From the waveform back to the mel, in samples of each stage.
        reach = self.post_reach + self.head.reach
        for upsampling, blocks in zip(self.upsamplings[::-1], self.blocks[::-1], strict=True):
            reach += max(block.reach for block in blocks)
            (rate,), (kernel_size,) = upsampling.strides, upsampling.kernel_size
            reach = -(-(reach + (kernel_size + rate - 1) // 2) // rate)
        reach += 3  # conv_pre
        return reach, reach

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
            "head": self.head.get_config(),
            "prior": self.prior,
            "n_mels": self.n_mels,
            "audio": dataclasses.asdict(self.audio) if self.audio else None,
            "weight_norm": self.weight_norm,
            "uneven_stages": self.uneven_stages,
        }


MOST_STAGES = 16
MOST_TAPS, MOST_DILATION = 2**12, 2**10
MOST_CHANNELS = 2**16


def _check_stages(rates, kernels, channels, uneven):
    check_each("upsample_rates", rates, 1, MOST_SAMPLES, MOST_STAGES)
    check_each("upsample_kernel_sizes", kernels, 1, MOST_TAPS, MOST_STAGES)
    if len(kernels) != len(rates):
        raise ValueError(
            f"upsample_kernel_sizes: {len(kernels)} of them for {len(rates)} upsample_rates"
        )
    for rate, kernel in zip(rates, kernels, strict=True):
        if kernel < rate or ((kernel - rate) % 2 and not uneven):
            nearest = either(kernel - 1, kernel + 1, least=rate) if kernel > rate else rate
            raise ValueError(
                f"upsample_kernel_sizes: {kernel} must be the rate {rate} plus an even number; "
                f"{nearest} would do"
            )
    check_whole("upsample_initial_channel", channels, 1, MOST_CHANNELS)
    factor = 2 ** len(rates)
    if channels % factor:
        below = channels // factor * factor
        raise ValueError(
            f"upsample_initial_channel: {channels} can't be halved {len(rates)} times; "
            f"{either(below, below + factor)} can"
        )


def _check_blocks(resblock, kernels, dilations):
    check_whole("resblock", resblock, 1, 2)
    check_each("resblock_kernel_sizes", kernels, 1, MOST_TAPS, MOST_STAGES)
    for kernel in kernels:
        if kernel % 2 == 0:
            nearest = either(kernel - 1, kernel + 1)
            raise ValueError(f"resblock_kernel_sizes: {kernel} is not odd; {nearest} would do")
    check_list("resblock_dilation_sizes", dilations, MOST_STAGES)
    for of_block in dilations:
        check_each("resblock_dilation_sizes", of_block, 1, MOST_DILATION, MOST_STAGES)
    if len(dilations) != len(kernels):
        raise ValueError(
            f"resblock_dilation_sizes: {len(dilations)} lists for {len(kernels)} "
            "resblock_kernel_sizes"
        )


def _stages_for(hop_length, stages, head):
    """Arguments that make so many samples of a frame, with at most so many stages."""
    of_head = ""
    if head.hop_length > 1:
        divisors = [d for d in range(1, hop_length + 1) if hop_length % d == 0]
        share = min(divisors, key=lambda d: abs(d - head.hop_length))
        if share != head.hop_length:
            times = max(2, head.n_fft // head.hop_length)
            times += share * times % 2
            of_head = f", head.hop_length={share}, head.n_fft={share * times}"
        hop_length //= share
    rates, rest = [], hop_length
    for factor in range(2, hop_length + 1):
        while rest % factor == 0:
            rates.append(factor)
            rest //= factor
    while len(rates) > stages:
        rates = sorted([rates[0] * rates[1], *rates[2:]])
    rates = rates[::-1] or [1]
    kernels = [2 * rate + rate % 2 for rate in rates]
    listed = ("[" + ",".join(map(str, numbers)) + "]" for numbers in (rates, kernels))
    return "upsample_rates={} with upsample_kernel_sizes={}".format(*listed) + of_head
