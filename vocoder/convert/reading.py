"""What all formats share: reading a config and a checkpoint, and putting weights in their place."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError, printable
from vocoder.paths import open_regular

CONFIG_LIMIT = 2**20  # bytes; the longest known has five thousand
MOST_LINES = 10  # of faults that are told one by one

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

# Under which name a checkpoint has the weights of a generator, where it has more than these.
WRAPPERS = ("generator", "state_dict", "model", "model_state_dict", "module")


def read_config(path: Path) -> dict:
    """A mapping in JSON, or in YAML if the name says so; read as data, no tag makes an object.

    Raises:
        InputError: Names the file.
    """
    import yaml

    is_yaml = path.suffix in (".yaml", ".yml")
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(CONFIG_LIMIT + 1)
        if len(content) > CONFIG_LIMIT:
            raise ValueError(f"larger than {CONFIG_LIMIT:,} bytes")
        text = content.decode("utf-8-sig")
        settings = yaml.safe_load(text) if is_yaml else json.loads(text)
    except Exception as error:  # PyYAML raises more than its own at broken files
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
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
    """The mel of HiFi-GAN and BigVGAN.

    Raises:
        ValueError: "setting: reason".
    """
    try:
        return AudioConfig(**{ours: settings[theirs] for ours, theirs in AUDIO.items()})
    except ValueError as error:
        name, _, reason = str(error).partition(": ")
        raise ValueError(f"{AUDIO.get(name, name)}: {reason}") from error


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """What a checkpoint holds by name: tensors, state dicts, and whatever was saved with them.

    Raises:
        InputError: There is no PyTorch, or the file is no such checkpoint.
    """
    try:
        import torch
    except Exception as error:  # one that is broken raises more than ImportError
        absent = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        reason = "not installed" if absent else f"can't be imported ({error})"
        raise InputError(
            f"torch: {reason}; pip install torch to read PyTorch checkpoints"
        ) from error
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a broken or hostile pickle makes torch raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path}: not a checkpoint that PyTorch reads safely ({reason})"
            ) from error
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: holds nothing by name; is it a checkpoint of a vocoder?")
    return loaded


def unwrapped(loaded: Any) -> Any:
    """The state dict of a generator inside of whatever it was saved with."""
    for _ in WRAPPERS:  # {"model": {"generator": {"state_dict": ...}}}, at most
        if not isinstance(loaded, dict):
            break
        name = next((n for n in WRAPPERS if isinstance(loaded.get(n), dict)), None)
        if name is None:
            break
        loaded = loaded[name]
    return loaded


def without_prefix(state: dict[str, Any], anchor: str, path: Path) -> dict[str, Any]:
    """The names of one network without what stands before all of them.

    That is "module." from `DataParallel`, "generator." or longer where it was part of a larger one.

    Args:
        state: By name.
        anchor: How the name of one of its weights begins, if nothing stands before it.
        path: The checkpoint, which a line is printed for if names of other networks are left out.
    """
    before = {
        name[: -len(rest)] if rest else name
        for name in state
        for rest in _rests(name)
        if rest.startswith(anchor)
    }
    if not before or "" in before:
        return state
    prefix = min(before, key=len)
    found = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if len(found) < len(state):
        left = len(state) - len(found)
        print(f"{path}: {left} names that don't begin with {printable(prefix)} left out")
    return found


def _rests(name: str) -> Iterator[str]:
    """A name from each of its parts on: "a.b.c", "b.c", "c"."""
    parts = name.split(".")
    return (".".join(parts[i:]) for i in range(len(parts)))


def arrays(state: Any, what: str, path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict as float32; `what` it is and the `path` are for messages.

    Raises:
        InputError: It is no state dict, or holds what is no plain array of finite numbers.
    """
    import torch

    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) for name in state)
        or not all(map(torch.is_tensor, state.values()))
    ):
        raise InputError(f"{path}: holds no tensors of {what}; is it the right checkpoint?")
    found = {}
    for name, tensor in state.items():
        try:
            kind = _unusable(tensor)
            if not kind:
                found[name] = tensor.detach().float().numpy()
        except Exception as error:  # tensors come in many kinds
            kind = f"a tensor that can't be read ({str(error).splitlines()[0]})"
        if kind:
            raise InputError(f"{path}: {name} is {kind}, and no weights")
    return found


def _unusable(tensor) -> str | None:
    """What a tensor is that is no plain array of numbers."""
    import torch

    if tensor.is_meta:
        return "a tensor without values"
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        return "a sparse, quantized or nested tensor"
    if tensor.is_complex() or tensor.dtype is torch.bool:
        return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "a tensor of more numbers than are stored"
    return None


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
        scale, direction = state.get(name + "weight_g"), state.get(name + "weight_v")
        if direction is None or scale.ndim != direction.ndim or direction.ndim < 2:
            continue  # to be told with what else has no place
        if scale.shape == (len(direction), *[1] * (direction.ndim - 1)):
            del state[name + "weight_g"], state[name + "weight_v"]
            axes = tuple(range(1, direction.ndim))
            norm = np.sqrt(np.sum(direction**2, axis=axes, keepdims=True))
            with np.errstate(all="ignore"):  # a direction of length 0, which `assign` tells
                state[name + "weight"] = direction * (scale / norm)
    return state


class Weight(NamedTuple):
    """A weight of a checkpoint, and the variable that it is here.

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
    """The kernel and the bias of a convolution or dense layer."""
    yield Weight(f"{name}.weight", convolution.kernel)
    if convolution.use_bias:
        yield Weight(f"{name}.bias", convolution.bias)


def assign(weights: Iterable[Weight], state: dict[str, np.ndarray], path: Path, what: str) -> None:
    """Assigns the arrays of a checkpoint, whose axes come in the reverse order of ours.

    Args:
        weights: Of all arrays.
        state: Arrays by name.
        path: The checkpoint, for messages.
        what: The network, for messages.

    Raises:
        InputError: What is missing, of another shape or left over: a line for each; a single line
            if there is so much of it that the checkpoint must be of another network.
    """
    missing, misshapen, values = [], [], []
    left = dict(state)
    for name, variable, shape, axes in weights:
        value = left.pop(name, None)
        expected = shape or tuple(reversed(variable.shape))
        if value is None:
            missing.append(f"{name} is missing")
        elif value.shape != expected:
            misshapen.append(f"{name} has shape {value.shape}, not {expected} as the rest says")
        else:
            ours = np.transpose(value.reshape(axes or expected))
            values.append((name, variable, ours.reshape(variable.shape)))
    left_over = [f"{printable(name)} has no place in this network" for name in left]
    problems = [*missing, *misshapen, *left_over]
    if len(problems) > MOST_LINES:
        count = len(values) + len(missing) + len(misshapen)
        raise InputError(
            f"{path}: not of {what} as its config says: of {count} arrays {len(missing)} are "
            f"missing and {len(misshapen)} have other shapes, and {len(left_over)} have no place "
            f"in it; {problems[0]}, for example"
        )
    if problems:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))
    for name, variable, value in values:
        if not np.isfinite(value).all():
            raise InputError(f"{path}: {name} is NaN or infinity, and no weights")
        variable.assign(value)
