"""Imports a published checkpoint: `python -m vocoder.convert CKPT CONFIG OUT.keras`.

Reads the generator of github.com/jik876/hifi-gan (`generator_v1` or `g_02500000` and its
`config.json`), folds its weight normalisation, and writes a `.keras` file. Needs PyTorch
(`pip install vocoder[torch]`), which reads the file with `weights_only=True`: no code in it runs.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path

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
    """Converts a HiFi-GAN checkpoint and returns the generator.

    Raises:
        InputError: A file can't be read, or names or shapes differ: one line for each.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from vocoder.generators import HiFiGAN

    if out.suffix != ".keras":
        raise InputError(f"{out}: the output's name must end in .keras")
    settings = _read_config(config)
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
    _assign(generator, fold(_read_checkpoint(checkpoint)), checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    generator.save(out)
    return generator


def fold(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replaces each `NAME.weight_g`, `NAME.weight_v` by `NAME.weight`.

    Also under the names of newer PyTorch, `NAME.parametrizations.weight.original0` and `1`.
    """
    for g, v in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        for name in [name.removesuffix(g) for name in state if name.endswith(g)]:
            if name + v in state:
                scale, direction = state.pop(name + g), state.pop(name + v)
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


def _assign(generator, state, checkpoint):
    problems = []
    for name, layer in _layers(generator):
        values = []
        for suffix, variable in (("weight", layer.kernel), ("bias", layer.bias)):
            full = f"{name}.{suffix}"
            value = state.pop(full, None)
            if value is None:
                problems.append(f"{checkpoint}: {full} is missing")
                continue
            if suffix == "weight":  # (out, in, taps), or (in, out, taps) of a transposed one
                value = np.transpose(value, (2, 1, 0))
            if value.shape != tuple(variable.shape):
                problems.append(
                    f"{checkpoint}: {full} has shape {_torch_shape(value.shape)}, "
                    f"not {_torch_shape(variable.shape)} as its config says"
                )
                continue
            values.append(value)
        if len(values) == 2:
            layer.set_weights(values)
    problems += [f"{checkpoint}: {name} has no place in this generator" for name in state]
    if problems:
        raise InputError("\n".join(problems))


def _torch_shape(shape):
    return tuple(reversed(tuple(shape)))


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


def _read_checkpoint(path: Path) -> dict[str, np.ndarray]:
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
    state = loaded.get("generator") if isinstance(loaded, dict) else None
    if not isinstance(state, dict):
        raise InputError(f'{path}: has no "generator"; is it a generator\'s checkpoint?')
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vocoder.convert", description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the config.json beside it")
    parser.add_argument("out", type=Path, metavar="OUT.keras")
    options = parser.parse_args(arguments)
    with exit_on_input_error():
        generator = convert(options.checkpoint, options.config, options.out)
        print(f"{options.out}: {generator.count_params():,} parameters")


if __name__ == "__main__":
    main()
