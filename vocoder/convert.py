"""Imports a published checkpoint: `python -m vocoder.convert CKPT CONFIG OUT.keras`.

Reads what github.com/jik876/hifi-gan trains, with its `config.json`, and writes a `.keras` file:
the generator (`generator_v1` or `g_02500000`) with its weight normalisation folded, for inference;
the discriminators (`do_02500000`) as they are, to train on with. Needs PyTorch (`pip install
vocoder[torch]`), which reads the file with `weights_only=True`: no code in it runs.
"""

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vocoder.config import AudioConfig
from vocoder.errors import InputError, exit_on_input_error

# Our argument -> the name in config.json.
ARGUMENTS = {
    "upsample_rates": "upsample_rates",
    "upsample_kernel_sizes": "upsample_kernel_sizes",
    "upsample_initial_channel": "upsample_initial_channel",
    "resblock_kernel_sizes": "resblock_kernel_sizes",
    "resblock_dilation_sizes": "resblock_dilation_sizes",
}
AUDIO = {
    "sample_rate": "sampling_rate",
    "n_fft": "n_fft",
    "hop_length": "hop_size",
    "win_length": "win_size",
    "n_mels": "num_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}


def convert(checkpoint: Path, config: Path, out: Path):
    """Converts a checkpoint of HiFi-GAN and returns its generator or `Discriminators`.

    Raises:
        InputError: A file can't be read, or names or shapes differ: one line for each.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if out.suffix != ".keras":
        raise InputError(f"{out}: the output's name must end in .keras")
    settings = _read_config(config)
    loaded = _read_checkpoint(checkpoint)
    if "mpd" in loaded and "msd" in loaded:
        model = _discriminators(loaded, checkpoint)
    else:
        model = _generator(loaded, settings, checkpoint, config)
    out.parent.mkdir(parents=True, exist_ok=True)
    model.save(out)
    return model


def _generator(loaded, settings, checkpoint, config):
    from vocoder.generators import HiFiGAN

    audio = AudioConfig(**{ours: settings[theirs] for ours, theirs in AUDIO.items()})
    arguments = {ours: settings[theirs] for ours, theirs in ARGUMENTS.items()}
    try:
        generator = HiFiGAN(
            **arguments,
            resblock=int(settings["resblock"]),
            audio=dataclasses.asdict(audio),
            weight_norm=False,
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{config}: {error}") from error
    generator.build((None, None, generator.n_mels))
    state = fold(_arrays(loaded, "generator", checkpoint))
    places = [
        place
        for name, layer in _layers(generator)
        for place in (
            _kernel(f"{name}.weight", layer.kernel),
            _vector(f"{name}.bias", layer.bias),
        )
    ]
    _assign(places, state, checkpoint)
    return generator


def _discriminators(loaded, checkpoint):
    """HiFi-GAN's discriminators, with as many channels, taps and groups as the weights have."""
    from vocoder.discriminators import (
        Discriminators,
        MultiPeriodDiscriminator,
        MultiScaleDiscriminator,
    )

    left_out = [name for name in loaded if name not in ("mpd", "msd")]
    if left_out:
        print(f"{checkpoint}: {', '.join(left_out)} left out; the optimizers start anew")
    state, parts = {}, []
    for name, cls in (("mpd", MultiPeriodDiscriminator), ("msd", MultiScaleDiscriminator)):
        of_part = old_names(_arrays(loaded, name, checkpoint))
        widths = _widths(of_part)
        if name == "mpd":
            del widths["groups"]
        try:
            parts.append(cls(**widths))
        except ValueError as error:
            raise InputError(f"{checkpoint}: {name}: {error}") from error
        state |= {f"{name}.{key}": value for key, value in of_part.items()}
    discriminators = Discriminators(parts)
    discriminators.build()
    _assign([place for part in parts for place in _places(part)], state, checkpoint)
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


def _places(discriminator):
    """Where each of the original's numbers goes in an MPD or MSD of ours."""
    flat = (1,) if discriminator.name == "mpd" else ()  # its kernels have two axes there
    for i, (stack, score) in enumerate(
        zip(discriminator.stacks, discriminator.scores, strict=True)
    ):
        names = [*(f"convs.{j}" for j in range(len(stack.convolutions))), "conv_post"]
        for layer_name, layer in zip(names, [*stack.convolutions, score], strict=True):
            name = f"{discriminator.name}.discriminators.{i}.{layer_name}"
            _, taps, channels, _ = layer._kernel.shape
            if hasattr(layer, "g"):
                yield _vector(f"{name}.weight_g", layer.g, tail=(1, 1, *flat))
                yield _kernel(f"{name}.weight_v", layer.v, flat)
            else:
                yield _kernel(f"{name}.weight_orig", layer._kernel, flat)
                yield _vector(f"{name}.weight_u", layer.u)
                # Channels, then taps there; taps, then channels here.
                yield Place(
                    f"{name}.weight_v",
                    layer.v,
                    tuple(layer.v.shape),
                    lambda v, channels=channels, taps=taps: v.reshape(channels, taps).T.ravel(),
                )
            yield _vector(f"{name}.bias", layer.bias)


def old_names(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames what newer PyTorch calls `NAME.parametrizations.weight...` as older did."""
    new = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
        "parametrizations.weight.original": "weight_orig",
        "parametrizations.weight.0._u": "weight_u",
        "parametrizations.weight.0._v": "weight_v",
    }
    renamed = {}
    for name, value in state.items():
        for suffix, old in new.items():
            if name.endswith(suffix):
                name = name.removesuffix(suffix) + old
                break
        renamed[name] = value
    return renamed


def fold(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces each `NAME.weight_g`, `NAME.weight_v` by `NAME.weight`."""
    state = old_names(state)
    for name in [name.removesuffix("weight_g") for name in state if name.endswith("weight_g")]:
        if name + "weight_v" in state:
            scale, direction = state.pop(name + "weight_g"), state.pop(name + "weight_v")
            norm = np.sqrt(np.sum(direction**2, axis=(1, 2), keepdims=True))
            state[name + "weight"] = direction * (scale / norm)
    return state


def _layers(generator):
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


@dataclasses.dataclass
class Place:
    """Where an array of a checkpoint goes.

    Attributes:
        name: PyTorch's.
        variable: Ours.
        shape: The array's in PyTorch.
        ours: From the array to the variable's value.
    """

    name: str
    variable: Any
    shape: tuple[int, ...]
    ours: Callable[[np.ndarray], np.ndarray]


def _kernel(name, variable, tail=()):
    """(out, in, taps), or (in, out, taps) of a transposed convolution; `tail` are axes of 1."""
    *_, taps, inner, outer = variable.shape
    shape = tuple(variable.shape)
    return Place(
        name,
        variable,
        (outer, inner, taps, *tail),
        lambda kernel: np.transpose(kernel.reshape(outer, inner, taps)).reshape(shape),
    )


def _vector(name, variable, tail=()):
    return Place(name, variable, (*variable.shape, *tail), np.ravel)


def _assign(places, state, checkpoint):
    """Fills the variables from `state`; all of it has to have a place, and the place's shape.

    Raises:
        InputError: A line for each that has not.
    """
    state = dict(state)
    problems, values = [], []
    for place in places:
        value = state.pop(place.name, None)
        if value is None:
            problems.append(f"{checkpoint}: {place.name} is missing")
        elif value.shape != place.shape:
            problems.append(
                f"{checkpoint}: {place.name} has shape {value.shape}, "
                f"not {place.shape} as the rest says"
            )
        else:
            values.append((place.variable, place.ours(value)))
    problems += [f"{checkpoint}: {name} has no place in this network" for name in state]
    if problems:
        raise InputError("\n".join(problems))
    for variable, value in values:
        variable.assign(value)


def _read_config(path: Path) -> dict:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error})") from error
    needed = [*ARGUMENTS.values(), *AUDIO.values(), "resblock"]
    missing = [name for name in needed if not isinstance(settings, dict) or name not in settings]
    if missing:
        raise InputError(f"{path}: no config of HiFi-GAN: {', '.join(missing)} missing")
    return settings


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """What the file holds by name: state dicts, and whatever else was saved with them."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "torch: not installed; pip install 'vocoder[torch]' to read PyTorch checkpoints"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile pickle makes torch raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: not a checkpoint that PyTorch reads safely ({reason})"
        ) from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds no state dicts by name")
    return loaded


def _arrays(loaded, name, path) -> dict[str, np.ndarray]:
    """The tensors of one state dict."""
    state = loaded.get(name)
    if not isinstance(state, dict) or not all(hasattr(one, "detach") for one in state.values()):
        raise InputError(f'{path}: has no "{name}"; is it a checkpoint of HiFi-GAN?')
    return {key: tensor.detach().float().numpy() for key, tensor in state.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vocoder.convert", description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the config.json beside it")
    parser.add_argument("out", type=Path, metavar="OUT.keras")
    options = parser.parse_args(arguments)
    with exit_on_input_error():
        model = convert(options.checkpoint, options.config, options.out)
        count = sum(math.prod(variable.shape) for variable in model.trainable_variables)
        print(f"{options.out}: {count:,} parameters")


if __name__ == "__main__":
    main()
