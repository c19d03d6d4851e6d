"""Checkpoints of HiFi-GAN's generator (github.com/jik876/hifi-gan)."""

import dataclasses

from vocoder.convert import reading

NAME = "HiFi-GAN"
ANCHOR = "conv_pre."
ARGUMENTS = (
    "upsample_rates",
    "upsample_kernel_sizes",
    "upsample_initial_channel",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
)


def matches(settings):
    return True  # whatever has no mark of the others


def build(settings):
    from vocoder.generators import HiFiGAN

    return HiFiGAN(**arguments(settings, NAME))


def arguments(settings, name, more=()):
    """What HiFi-GAN's generator and BigVGAN's are both made of.

    Raises:
        ValueError: "setting: reason".
    """
    reading.require(settings, [*ARGUMENTS, *more, *reading.AUDIO.values(), "resblock"], name)
    rates, kernels = settings["upsample_rates"], settings["upsample_kernel_sizes"]
    kind = settings["resblock"]
    return {
        **{argument: settings[argument] for argument in (*ARGUMENTS, *more)},
        "resblock": int(kind) if kind in ("1", "2") else kind,
        "audio": dataclasses.asdict(reading.audio_of(settings)),
        "weight_norm": False,
        "uneven_stages": _uneven(rates, kernels),
    }


def _uneven(rates, kernels):
    """Whether a stage makes a sample more than its rate says, as in AudioLDM's network."""
    if not isinstance(rates, list) or not isinstance(kernels, list):
        return False
    pairs = zip(rates, kernels, strict=False)
    return any(isinstance(r, int) and isinstance(k, int) and (k - r) % 2 for r, k in pairs)


def is_buffer(name):
    return False


def layers(generator):
    """The original's names of the generator's convolutions."""
    yield "conv_pre", generator.conv_pre
    per_stage = len(generator.resblock_kernel_sizes)
    for i, (upsampling, blocks) in enumerate(
        zip(generator.upsamplings, generator.blocks, strict=True)
    ):
        yield f"ups.{i}", upsampling
        for j, block in enumerate(blocks):
            prefix = f"resblocks.{i * per_stage + j}"
            for k, unit in enumerate(block.units):
                lists = ("convs1", "convs2") if generator.resblock == 1 else ("convs",)
                for name, convolution in zip(lists, unit, strict=True):
                    yield f"{prefix}.{name}.{k}", convolution
    yield "conv_post", generator.conv_post


def weights(generator):
    for name, layer in layers(generator):
        yield from reading.layer(name, layer)
