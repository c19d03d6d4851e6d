"""Name -> class: the only way from a config value to code.

The tables are closed. A config can name an entry of a table and give keyword arguments, nothing
else: no dotted path is imported. Entries are import strings, so that the names can be listed
without importing Keras.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from vocoder.errors import InputError
from vocoder.kinds import checked, like

GENERATORS = {
    "bigvgan": "vocoder.generators.bigvgan:BigVGAN",
    "hifigan": "vocoder.generators.hifigan:HiFiGAN",
    "vocos": "vocoder.generators.vocos:Vocos",
}

HEADS = {
    "istft": "vocoder.heads.istft:ISTFT",
    "griffin_lim": "vocoder.heads.griffin_lim:GriffinLim",
    "waveform": "vocoder.heads.waveform:Waveform",
    "wavenext": "vocoder.heads.wavenext:WaveNeXt",
}

DISCRIMINATORS = {
    "multi_period": "vocoder.discriminators.multi_period:MultiPeriodDiscriminator",
    "multi_scale": "vocoder.discriminators.multi_scale:MultiScaleDiscriminator",
    "multi_resolution": "vocoder.discriminators.multi_resolution:MultiResolutionDiscriminator",
}

LOSSES = {
    "waveform_l1": "vocoder.losses.waveform:WaveformL1Loss",
    "mel": "vocoder.losses.mel:MelLoss",
    "multi_resolution_mel": "vocoder.losses.mel:MultiResolutionMelLoss",
    "stft": "vocoder.losses.stft:STFTLoss",
    "multi_resolution_stft": "vocoder.losses.stft:MultiResolutionSTFTLoss",
    "least_squares": "vocoder.losses.adversarial:LeastSquaresLoss",
    "hinge": "vocoder.losses.adversarial:HingeLoss",
    "feature_matching": "vocoder.losses.feature_matching:FeatureMatchingLoss",
    "mean_absolute_error": "keras.losses:MeanAbsoluteError",
    "mae": "keras.losses:MeanAbsoluteError",
    "mean_squared_error": "keras.losses:MeanSquaredError",
    "mse": "keras.losses:MeanSquaredError",
    "huber": "keras.losses:Huber",
    "log_cosh": "keras.losses:LogCosh",
}

METRICS = {
    "pesq_wb": "vocoder.evaluation.perceptual:PESQ",
    "stoi": "vocoder.evaluation.perceptual:STOI",
    "mcd": "vocoder.evaluation.spectral:MelCepstralDistortion",
    "mr_stft": "vocoder.evaluation.spectral:MultiResolutionSTFT",
    "log_mel_l1": "vocoder.evaluation.spectral:LogMelL1",
    "pitch": "vocoder.evaluation.pitch:Pitch",
    "dnsmos": "vocoder.evaluation.ratings:DNSMOS",
    "plcmos": "vocoder.evaluation.ratings:PLCMOS",
}

OPTIMIZERS = {
    "adam": "vocoder.training.optimizer:Adam",
    "adamw": "vocoder.training.optimizer:AdamW",
    "lion": "vocoder.training.optimizer:Lion",
    "muon": "vocoder.training.optimizer:Muon",
    "sgd": "vocoder.training.optimizer:SGD",
}

# Of Keras', for the epochs from one validation to the next.
CALLBACKS = {"early_stopping": "keras.callbacks:EarlyStopping"}

SCHEDULES = {
    "constant": "vocoder.training.optimizer:constant",
    "exponential": "vocoder.training.optimizer:exponential",
    "cosine": "vocoder.training.optimizer:cosine",
}


def known(name: str, names, key: str) -> str:
    """Returns `name` if it is one of `names`.

    Raises:
        InputError: names `key`, lists what is known, and the closest of it.
    """
    if isinstance(name, str) and name in names:
        return name
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{key}: unknown {name!r}{hint} (known: {', '.join(sorted(names))})")


def find(table: Mapping[str, str], name: str, key: str):
    """The class or function that `name` stands for.

    Raises:
        InputError: The name is unknown.
    """
    module, attribute = table[known(name, table, key)].split(":")
    return getattr(importlib.import_module(module), attribute)


def build(
    table: Mapping[str, str],
    node: Mapping[str, Any],
    key: str,
    name_key: str = "name",
    provided: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Any] | None = None,
):
    """Builds the object that a config node describes.

    Args:
        table: One of the tables above.
        node: `{name_key: NAME, argument: value, ...}`.
        key: Where the node stands in the config, for messages.
        name_key: The entry of `node` that names the class.
        provided: Values passed to those arguments that the constructor has and `node` leaves out,
            such as the sample rate.
        kinds: Types of arguments, as `vocoder.kinds.checked` takes them; of others the default
            tells.

    Raises:
        InputError: The name or an argument is unknown, an argument is missing, or the constructor
            refuses a value (constructors raise `ValueError("argument: reason")`).
    """
    if name_key not in node:
        raise InputError(f"{key}.{name_key}: missing (known: {', '.join(sorted(table))})")
    factory = find(table, node[name_key], f"{key}.{name_key}")
    signature = inspect.signature(factory).parameters
    parameters = {n: p for n, p in signature.items() if p.kind is not p.VAR_KEYWORD}
    arguments = {k: v for k, v in (provided or {}).items() if k in parameters}
    for argument, value in node.items():
        if argument != name_key:
            known(argument, parameters, f"{key}.{argument}")
            if argument in (kinds or {}):
                arguments[argument] = checked(value, kinds[argument], f"{key}.{argument}")
            else:
                example = parameters[argument].default
                arguments[argument] = like(value, example, f"{key}.{argument}")
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and argument not in arguments:
            raise InputError(f"{key}.{argument}: missing; {node[name_key]} needs it")
    try:
        return factory(**arguments)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        names_argument = re.match(r"\w+(\.\w+)*: ", reason)  # as ours do
        raise InputError(f"{key}.{reason}" if names_argument else f"{key}: {reason}") from error
