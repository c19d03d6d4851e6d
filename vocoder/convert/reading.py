"""What all formats share: reading a config and a checkpoint, and putting weights in their place."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vocoder.config import AudioConfig
from vocoder.errors import InputError

# AudioConfig's argument -> the name in a config.json of HiFi-GAN and its descendants.
AUDIO = {
    "sample_rate": "sampling_rate",
    "n_fft": "n_fft",
    "hop_length": "hop_size",
    "win_length": "win_size",
    "n_mels": "num_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}


def read_config(path: Path) -> dict:
    """A mapping in JSON, or in YAML if the name says so; read as data, no tag makes an object.

    Raises:
        InputError: Names the file.
    """
    import yaml

    is_yaml = path.suffix in (".yaml", ".yml")
    try:
        text = path.read_text()
        settings = yaml.safe_load(text) if is_yaml else json.loads(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        kind = "plain YAML" if is_yaml else "JSON"
        raise InputError(f"{path}: can't be read as {kind} ({reason})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: no mapping of settings")
    return settings


def require(settings: dict, names: Iterable[str], network: str) -> None:
    """Raises `ValueError` that lists those of `names` that are missing."""
    missing = [name for name in names if name not in settings]
    if missing:
        raise ValueError(f"no config of {network}: {', '.join(missing)} missing")


def audio_of(settings: dict) -> AudioConfig:
    """The mel of HiFi-GAN and BigVGAN."""
    return AudioConfig(**{ours: settings[theirs] for ours, theirs in AUDIO.items()})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds by name: tensors, state dicts, and whatever was saved with them.

    Raises:
        InputError: There is no PyTorch, or the file is no such checkpoint.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "torch: not installed; pip install torch to read PyTorch checkpoints"
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
        raise InputError(f"{path}: holds nothing by name; is it a checkpoint of a vocoder?")
    return loaded


def arrays(state: Any, what: str, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict; `what` it is and the checkpoint's `path` are for messages.

    Raises:
        InputError: It is no state dict.
    """
    import torch

    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise InputError(f"{path}: holds no tensors of {what}; is it the right checkpoint?")
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}


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
    """Replaces each `NAME.weight_g`, `NAME.weight_v`, or newer names, by `NAME.weight`."""
    state = old_names(state)
    for name in [name.removesuffix("weight_g") for name in state if name.endswith("weight_g")]:
        if name + "weight_v" in state:
            scale, direction = state.pop(name + "weight_g"), state.pop(name + "weight_v")
            norm = np.sqrt(np.sum(direction**2, axis=(1, 2), keepdims=True))
            state[name + "weight"] = direction * (scale / norm)
    return state


class Place(NamedTuple):
    """Where an array of a checkpoint goes.

    Attributes:
        name: PyTorch's.
        variable: Ours.
        shape: The array's; None if it is ours reversed.
        axes: What the array is seen as before its axes are reversed; None if as it is.
    """

    name: str
    variable: Any
    shape: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None


def layer(name: str, convolution):
    """Places of the kernel and the bias of a convolution or dense layer."""
    yield Place(f"{name}.weight", convolution.kernel)
    if convolution.use_bias:
        yield Place(f"{name}.bias", convolution.bias)


def assign(places: Iterable[Place], state: dict[str, np.ndarray], path: Path) -> None:
    """Assigns the arrays of a checkpoint, whose axes come in the reverse order of ours.

    Args:
        places: Of all arrays.
        state: Arrays by name.
        path: The checkpoint, for messages.

    Raises:
        InputError: What is missing, of another shape or left over: a line for each.
    """
    problems, values = [], []
    left = dict(state)
    for name, variable, shape, axes in places:
        value = left.pop(name, None)
        expected = shape or tuple(reversed(variable.shape))
        if value is None:
            problems.append(f"{path}: {name} is missing")
        elif value.shape != expected:
            problems.append(
                f"{path}: {name} has shape {value.shape}, not {expected} as the rest says"
            )
        else:
            ours = np.transpose(value.reshape(axes or expected))
            values.append((variable, ours.reshape(variable.shape)))
    problems += [f"{path}: {name} has no place in this network" for name in left]
    if problems:
        raise InputError("\n".join(problems))
    for variable, value in values:
        variable.assign(value)
