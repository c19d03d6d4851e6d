"""Checkpoints of Vocos for mels (github.com/gemelo-ai/vocos, and its forks' with other mels)."""

import dataclasses

from vocoder import registry
from vocoder.audio.settings import AudioConfig
from vocoder.convert import reading
from vocoder.convert.reading import Weight

NAME = "Vocos"
ANCHOR = "backbone.embed."

# Arguments of torchaudio's mel spectrogram and what they must be, if they are there.
FIXED = {
    "pad": (0,),
    "window_fn": (None,),
    "wkwargs": (None,),
    "normalized": (False,),
    "pad_mode": ("reflect",),
    "onesided": (None, True),
}
# Part of config.yaml -> the class it must name, and the arguments of it that we read. The name is
# only compared: nothing is imported.
PARTS = {
    "feature_extractor": (
        "MelSpectrogramFeatures",
        (
            *("sample_rate", "n_fft", "win_length", "hop_length", "n_mels", "padding", "center"),
            *("f_min", "f_max", "norm", "mel_scale", "power", "clip_val", *FIXED),
        ),
    ),
    "backbone": (
        "VocosBackbone",
        (
            *("input_channels", "dim", "intermediate_dim", "num_layers"),
            *("layer_scale_init_value", "adanorm_num_embeddings"),
        ),
    ),
    "head": ("ISTFTHead", ("dim", "n_fft", "hop_length", "padding")),
}


def matches(settings):
    return "backbone" in _model(settings)


def build(settings):
    from vocoder.generators import Vocos

    features, backbone, head = (_arguments(_model(settings), part) for part in PARTS)
    reading.require(
        backbone, ("input_channels", "dim", "intermediate_dim", "num_layers"), "a Vocos backbone"
    )
    reading.require(head, ("n_fft", "hop_length"), "a Vocos head")
    if backbone.get("adanorm_num_embeddings") is not None:
        raise ValueError("backbone.init_args.adanorm_num_embeddings: only null is converted")
    return Vocos(
        dim=backbone["dim"],
        intermediate_dim=backbone["intermediate_dim"],
        num_layers=backbone["num_layers"],
        head={
            "name": "istft",
            "n_fft": head["n_fft"],
            "hop_length": head["hop_length"],
            "padding": head.get("padding", "same"),
        },
        n_mels=backbone["input_channels"],
        audio=dataclasses.asdict(_audio(features)),
    )


def _audio(features):
    """torchaudio's mel spectrogram, of the magnitude unless `power` says otherwise.

    A floor before the logarithm, `clip_val`, is a setting in some forks; in the original it is in
    the code, 1e-7.
    """
    key = "feature_extractor.init_args"
    defaults = {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100}
    features = defaults | {"padding": "center"} | features
    for name, allowed in FIXED.items():
        if features.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{key}.{name}: only {allowed[0]!r} is converted")
    scale = features.get("mel_scale", "htk")
    if scale not in ("htk", "slaney"):
        raise ValueError(f'{key}.mel_scale: must be "htk" or "slaney", not {scale!r}')
    if features.get("center", features["padding"] == "center") != (features["padding"] == "center"):
        raise ValueError(f"{key}.center: only as padding says it is converted")
    window = features.get("win_length")
    try:
        return AudioConfig(
            **{name: features[name] for name in (*defaults, "padding")},
            win_length=features["n_fft"] if window is None else window,
            fmin=_number(features.get("f_min", 0)),
            fmax=_number(features.get("f_max")),
            floor=_number(features.get("clip_val", 1e-7)),
            power=_number(features.get("power", 1)),
            htk=scale == "htk",
            norm=features.get("norm"),
            magnitude_epsilon=0.0,
        )
    except ValueError as error:
        name, _, reason = str(error).partition(": ")
        name = {"fmin": "f_min", "fmax": "f_max", "floor": "clip_val"}.get(name, name)
        raise ValueError(f"{key}.{name}: {reason}") from error


def _number(value):
    """YAML's own reading of 1e-5, without a point, is a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _model(settings):
    """The config of a training run has the model's inside."""
    model = settings.get("model")
    inside = model.get("init_args") if isinstance(model, dict) else None
    return inside if isinstance(inside, dict) and "backbone" not in settings else settings


def _arguments(settings, part):
    node = settings.get(part)
    if not isinstance(node, dict) or not isinstance(node.get("init_args", {}), dict):
        raise ValueError(f"no config of Vocos: {part} is no class_path with init_args")
    name, known = PARTS[part]
    if str(node.get("class_path")).split(".")[-1] != name:
        raise ValueError(
            f"{part}.class_path: only {name} is converted, not {node.get('class_path')}"
        )
    arguments = node.get("init_args", {})
    for argument in arguments:
        registry.known(argument, known, f"{part}.init_args.{argument}")
    return arguments


def is_buffer(name):
    others = ("feature_extractor.", "melspec_loss.", "multiperioddisc.", "multiresddisc.")
    return name.startswith(others) or name == "head.istft.window"


def weights(generator):
    yield from reading.layer("backbone.embed", generator.embed)
    yield from _norm("backbone.norm", generator.norm)
    for i, block in enumerate(generator.blocks):
        prefix = f"backbone.convnext.{i}"
        yield Weight(f"{prefix}.gamma", block.gamma)
        yield Weight(f"{prefix}.dwconv.weight", block.depthwise.kernel)
        yield Weight(f"{prefix}.dwconv.bias", block.depthwise.bias)
        yield from _norm(f"{prefix}.norm", block.norm)
        yield from reading.layer(f"{prefix}.pwconv1", block.expand)
        yield from reading.layer(f"{prefix}.pwconv2", block.project)
    yield from _norm("backbone.final_layer_norm", generator.final_norm)
    yield from reading.layer("head.out", generator.out)


def _norm(name, norm):
    yield Weight(f"{name}.weight", norm.gamma)
    yield Weight(f"{name}.bias", norm.beta)
