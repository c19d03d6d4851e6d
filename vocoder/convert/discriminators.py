"""Checkpoints of HiFi-GAN's discriminators (`do_02500000`, github.com/jik876/hifi-gan)."""

from typing import Any

from vocoder.convert import reading
from vocoder.convert.reading import Weight
from vocoder.errors import InputError, printable

ANCHOR = "discriminators.0."


def matches(loaded):
    return "mpd" in loaded and "msd" in loaded and "generator" not in loaded


def build(loaded, checkpoint):
    """`CombinedDiscriminator` with as many channels, taps and groups as the weights have.

    Raises:
        InputError: Names or shapes differ: one line for each.
    """
    from vocoder.discriminators import (
        CombinedDiscriminator,
        MultiPeriodDiscriminator,
        MultiScaleDiscriminator,
    )

    left_out = [name for name in loaded if name not in ("mpd", "msd")]
    if left_out:
        names = printable(", ".join(map(str, left_out)))
        print(f"{checkpoint}: {names} left out; the optimizers start anew")
    state, parts = {}, []
    for name, cls in (("mpd", MultiPeriodDiscriminator), ("msd", MultiScaleDiscriminator)):
        of_part = reading.arrays(loaded[name], f'"{name}"', checkpoint)
        of_part = reading.old_names(reading.without_prefix(of_part, ANCHOR, checkpoint))
        widths = _widths(of_part)
        if name == "mpd":
            del widths["groups"]
        try:
            parts.append(cls(**widths))
        except ValueError as error:
            raise InputError(f"{checkpoint}: {name}: {error}") from error
        state |= {f"{name}.{key}": value for key, value in of_part.items()}
    discriminators = CombinedDiscriminator(parts)
    discriminators.build()
    weights = [weight for part in parts for weight in _weights(part)]
    reading.assign(weights, state, checkpoint, "HiFi-GAN's discriminators")
    return discriminators


def _widths(state) -> dict[str, Any]:
    """A discriminator's arguments that can be seen in the shapes of its weights."""
    kernels = []
    while (kernel := _some_kernel(state, f"convs.{len(kernels)}")) is not None:
        kernels.append(kernel)
    channels = [kernel.shape[0] for kernel in kernels]
    widths = {
        "channels": channels,
        "kernel_sizes": [kernel.shape[2] for kernel in kernels],
        "groups": [
            before // max(1, kernel.shape[1])
            for before, kernel in zip([1, *channels], kernels, strict=False)
        ],
    }
    last = _some_kernel(state, "conv_post")
    return widths if last is None else widths | {"score_kernel_size": last.shape[2]}


def _some_kernel(state, layer):
    for suffix in ("weight_orig", "weight_v"):
        kernel = state.get(f"discriminators.0.{layer}.{suffix}")
        if kernel is not None and kernel.ndim >= 3:
            return kernel
    return None


def _weights(discriminator):
    """Where each of the original's numbers goes in an MPD or MSD of ours."""
    flat = (1,) if discriminator.name == "mpd" else ()  # its kernels have two axes there
    for i, (stack, score) in enumerate(
        zip(discriminator.stacks, discriminator.scores, strict=True)
    ):
        names = [*(f"convs.{j}" for j in range(len(stack.convolutions))), "conv_post"]
        for layer_name, layer in zip(names, [*stack.convolutions, score], strict=True):
            name = f"{discriminator.name}.discriminators.{i}.{layer_name}"
            _, taps, channels, filters = layer._kernel.shape
            shape = (filters, channels, taps, *flat)
            if hasattr(layer, "g"):
                yield Weight(f"{name}.weight_g", layer.g, (filters, 1, 1, *flat))
                yield Weight(f"{name}.weight_v", layer.v, shape)
            else:
                yield Weight(f"{name}.weight_orig", layer._kernel, shape)
                yield Weight(f"{name}.weight_u", layer.u)
                # Channels, then taps there; taps, then channels here.
                yield Weight(f"{name}.weight_v", layer.v, axes=(channels, taps))
            yield Weight(f"{name}.bias", layer.bias)
