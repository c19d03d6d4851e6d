"""Checkpoints of BigVGAN (github.com/NVIDIA/BigVGAN)."""

from vocoder.convert import hifigan, reading
from vocoder.convert.reading import Weight
from vocoder.kinds import check_bool

NAME = "BigVGAN"
ANCHOR = "conv_pre."
OPTIONS = ("use_tanh_at_final", "use_bias_at_final")


def matches(settings):
    return "activation" in settings


def build(settings):
    from vocoder.generators import BigVGAN

    for name in OPTIONS:
        check_bool(name, settings.get(name, True))
    tanh, bias = (settings.get(name, True) for name in OPTIONS)
    return BigVGAN(
        **hifigan.arguments(settings, NAME, ("activation", "snake_logscale")),
        head={"name": "waveform", "activation": "tanh" if tanh else "clip"},
        use_bias_at_final=bias,
    )


def is_buffer(name):
    return name.endswith((".upsample.filter", ".downsample.lowpass.filter"))


def weights(generator):
    # HiFi-GAN's names but for one more index of the upsamplings, and the activations besides.
    for name, layer in hifigan.layers(generator):
        yield from reading.layer(f"{name}.0" if name.startswith("ups.") else name, layer)
    blocks = [block for stage in generator.blocks for block in stage]
    for i, block in enumerate(blocks):
        snakes = [snake for unit in block.snakes for snake in unit]
        for j, snake in enumerate(snakes):
            yield from _snake(f"resblocks.{i}.activations.{j}", snake)
    yield from _snake("activation_post", generator.activation_post)


def _snake(name, snake):
    yield Weight(f"{name}.act.alpha", snake.alpha)
    if snake.kind == "snakebeta":
        yield Weight(f"{name}.act.beta", snake.beta)
