"""Checkpoints of HiFi-GAN's generator (github.com/jik876/hifi-gan)."""

import dataclasses

from vocoder.convert import reading

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

    reading.require(settings, [*ARGUMENTS, *reading.AUDIO.values(), "resblock"], "HiFi-GAN")
    return HiFiGAN(
        **{name: settings[name] for name in ARGUMENTS},
        resblock=int(settings["resblock"]),
        audio=dataclasses.asdict(reading.audio_of(settings)),
        weight_norm=False,
    )


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


def places(generator):
    for name, layer in layers(generator):
        yield from reading.layer(name, layer)
