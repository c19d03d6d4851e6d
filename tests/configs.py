"""The sections of a config as the YAML files have them, but for what is given."""

import functools
from types import SimpleNamespace

import yaml

from vocoder.config import DataConfig, TrainerConfig, section
from vocoder.paths import asset


@functools.cache
def _defaults(path):
    return yaml.safe_load((asset("configs") / path).read_text())


def data_config(root, **changes) -> DataConfig:
    return section(
        DataConfig, _defaults("data/folder.yaml") | {"root": str(root)} | changes, "data"
    )


def trainer_config(**changes) -> TrainerConfig:
    return section(TrainerConfig, _defaults("trainer/default.yaml") | changes, "trainer")


def optimizing(schedule=None, optimizer=None, discriminators=None, **trainer):
    """What `build_optimizer` takes of a config.

    Args:
        schedule: `{name: ...}` and changes; constant by default.
        optimizer, discriminators: Changes; the latter of `discriminator_optimizer`.
        trainer: Changes of the trainer's.
    """
    schedule = schedule or {"name": "constant"}
    name = (optimizer or {}).get("name", "adamw")
    return SimpleNamespace(
        schedule=_defaults(f"schedule/{schedule['name']}.yaml") | schedule,
        optimizer=_defaults(f"optimizer/{name}.yaml") | (optimizer or {}),
        discriminator_optimizer=discriminators or {},
        discriminator_schedule={},
        trainer=trainer_config(**trainer),
    )
