"""Checkpoints of Vocos for mels (github.com/gemelo-ai/vocos)."""

import dataclasses

from vocoder import registry
from vocoder.config import AudioConfig
from vocoder.convert import reading
from vocoder.convert.reading import Place

# Part of config.yaml -> the class it must name, and the arguments of it that we read. The name is
# only compared: nothing is imported.
PARTS = {
    "feature_extractor": (
        "MelSpectrogramFeatures",
        ("sample_rate", "n_fft", "hop_length", "n_mels", "padding"),
    ),
    "backbone": (
        "VocosBackbone",
        ("input_channels", "dim", "intermediate_dim", "num_layers", "layer_scale_init_value"),
    ),
    "head": ("ISTFTHead", ("dim", "n_fft", "hop_length", "padding")),
}


def matches(settings):
    return "backbone" in settings


def build(settings):
    from vocoder.generators import Vocos

    features, backbone, head = (_arguments(settings, part) for part in PARTS)
    reading.require(
        backbone, ("input_channels", "dim", "intermediate_dim", "num_layers"), "a Vocos backbone"
    )
    reading.require(head, ("n_fft", "hop_length"), "a Vocos head")
    defaults = {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100}
    features = defaults | {"padding": "center"} | features
    # torchaudio's mel spectrogram of the magnitude, and Vocos' floor before the logarithm.
    audio = AudioConfig(
        **features,
        win_length=features["n_fft"],
        fmax=None,
        floor=1e-7,
        htk=True,
        norm=None,
        magnitude_epsilon=0.0,
    )
    return Vocos(
        dim=backbone["dim"],
        intermediate_dim=backbone["intermediate_dim"],
        num_layers=backbone["num_layers"],
        istft_n_fft=head["n_fft"],
        istft_hop_length=head["hop_length"],
        istft_padding=head.get("padding", "same"),
        n_mels=backbone["input_channels"],
        audio=dataclasses.asdict(audio),
    )


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
    return name.startswith("feature_extractor.") or name == "head.istft.window"


def places(generator):
    yield from reading.layer("backbone.embed", generator.embed)
    yield from _norm("backbone.norm", generator.norm)
    for i, block in enumerate(generator.blocks):
        prefix = f"backbone.convnext.{i}"
        yield Place(f"{prefix}.gamma", block.gamma)
        yield Place(f"{prefix}.dwconv.weight", block.depthwise.kernel)
        yield Place(f"{prefix}.dwconv.bias", block.depthwise.bias)
        yield from _norm(f"{prefix}.norm", block.norm)
        yield from reading.layer(f"{prefix}.pwconv1", block.expand)
        yield from reading.layer(f"{prefix}.pwconv2", block.project)
    yield from _norm("backbone.final_layer_norm", generator.final_norm)
    yield from reading.layer("head.out", generator.out)


def _norm(name, norm):
    yield Place(f"{name}.weight", norm.gamma)
    yield Place(f"{name}.bias", norm.beta)
