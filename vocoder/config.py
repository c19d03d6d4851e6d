"""The typed frame of a run and the checks across its fields.

Hydra composes the YAML files of `configs/`, which say what each key means and what it is by
default; `RunConfig.from_omegaconf` turns the result into the dataclasses below, which say of what
type and in which range it is. Nothing here imports Keras.
"""

import dataclasses
import typing
from typing import Annotated, Any, Literal

from pydantic import Field

from vocoder.audio.settings import AudioConfig
from vocoder.composition import as_plain
from vocoder.errors import InputError
from vocoder.kinds import PRECISIONS, Flag, Number, Text, Whole, checked
from vocoder.paths import path_of
from vocoder.registry import known

# Pydantic's types, with the ranges of values.
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[Whole, Field(ge=1)]
CountOrNone = Annotated[Whole, Field(ge=0)]

STRATEGIES = ("auto", "none", "mirrored", "multi_worker")


@dataclasses.dataclass
class DataConfig:
    """Where the recordings are and how segments are drawn from them: `configs/data/folder.yaml`."""

    root: Text
    include: list[Text]
    train_list: Text | None
    validation_list: Text | None
    validation_fraction: Share
    mels: Text | None
    batch_size: Count
    segment_length: Count
    validation_segments: Count
    resample: Flag
    stereo: Literal["mix", "refuse"]
    max_bad_fraction: Annotated[Number, Field(ge=0, le=1)]
    gain_db: Annotated[list[Number], Field(min_length=2, max_length=2)] | None
    cache: Text | None
    threads: Count


@dataclasses.dataclass
class TrainerConfig:
    """How long is trained, on what devices, and what is written when: `configs/trainer`."""

    max_steps: Count
    max_minutes: Positive | None
    precision: Literal[PRECISIONS]
    rematerialization: Flag
    jit_compile: Flag
    strategy: Literal[STRATEGIES]
    deterministic: Flag
    validate_every: Count
    checkpoint_every: Count
    log_every: Count
    keep_checkpoints: Count
    samples: CountOrNone
    validation_metrics: list[Text]
    validation_utterances: Count
    best: Text
    max_bad_steps: CountOrNone
    resume: Text | None
    pretrained: Text | None
    pretrained_discriminators: Text | None
    discriminator_start: CountOrNone
    discriminator_warmup: CountOrNone


@dataclasses.dataclass
class RunConfig:
    """Everything that makes a run.

    What is a mapping here is a node for the registry, or holds such nodes.
    """

    audio: AudioConfig
    generator: dict[str, Any]
    discriminator: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    discriminator_optimizer: dict[str, Any]
    discriminator_schedule: dict[str, Any]
    callbacks: dict[str, Any]
    data: DataConfig
    trainer: TrainerConfig
    seed: int

    @classmethod
    def from_omegaconf(cls, node) -> "RunConfig":
        """Converts a composed config and checks it.

        Raises:
            InputError: A value is missing, of a wrong type or out of range.
        """
        plain = as_plain(node)
        sections = [field.name for field in dataclasses.fields(cls)]
        for key in plain:
            known(key, sections, key)
        for key in sections:
            if key not in plain:
                raise InputError(f"{key}: missing from the config; every run has one")
            if key != "seed" and not isinstance(plain[key], dict):
                raise InputError(f"{key}: must be a mapping, not {plain[key]!r}")
        typed = {"audio": AudioConfig, "data": DataConfig, "trainer": TrainerConfig}
        frame = {key: section(kind, plain[key], key) for key, kind in typed.items()}
        config = cls(**plain | frame)
        config.check()
        return config

    def check(self) -> None:
        """Checks what no single section can see.

        Raises:
            InputError: Names the key.
        """
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:  # NumPy's
            raise InputError(
                f"seed: must be a whole number of at least 0 and below 2^32, not {self.seed!r}"
            )
        if self.trainer.pretrained_discriminators and not self.discriminator.get("parts"):
            raise InputError(
                "trainer.pretrained_discriminators: there are no discriminators to begin with them;"
                " discriminator=mpd_msd, for example"
            )


def nearest_multiple(value: int, factor: int) -> int:
    """The multiple of `factor` closest to `value`, at least `factor`."""
    return max(1, round(value / factor)) * factor


# Keys that are paths, in which `~` is a home folder as in a shell.
PATHS = {
    "data": ("root", "train_list", "validation_list", "mels", "cache"),
    "trainer": ("resume", "pretrained", "pretrained_discriminators"),
}


def section(cls, values: dict, section: str):
    """An instance of one of the dataclasses above, of plain data.

    Args:
        cls: The dataclass.
        values: Its fields; `~` in a path is a home folder.
        section: Its key in the config, for messages.

    Raises:
        InputError: A value is unknown, missing, of another type or out of range.
    """
    kinds = typing.get_type_hints(cls, include_extras=True)
    arguments = {}
    for name, value in values.items():
        kind = kinds[known(name, kinds, f"{section}.{name}")]
        arguments[name] = checked(value, kind, f"{section}.{name}")
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING and field.name not in arguments:
            raise InputError(f"{section}.{field.name}: missing; give {section}.{field.name}=VALUE")
    for name in PATHS.get(section, ()):
        if (value := arguments[name] or "").startswith("~"):
            arguments[name] = str(path_of(value, f"{section}.{name}"))
    try:
        return cls(**arguments)
    except ValueError as error:  # of the dataclass itself
        raise InputError(f"{section}.{error}") from error
