"""From a config to a trainer that `fit` can run."""

import dataclasses
from collections.abc import Mapping

from vocoder import registry
from vocoder.config import RunConfig
from vocoder.discriminators.combined import build_discriminators
from vocoder.errors import InputError
from vocoder.kinds import Number
from vocoder.layers.weight_norm import adopt_weights
from vocoder.losses.terms import build_discriminator_loss, build_multi_loss
from vocoder.paths import user_path
from vocoder.safe_files import load_discriminators, load_generator
from vocoder.training.gan import AdversarialTrainer
from vocoder.training.optimizer import build_discriminator_optimizer, build_optimizer
from vocoder.training.run_folder import GENERATOR, generators_of
from vocoder.training.trainer import ReconstructionTrainer, Trainer
from vocoder.training.validation import check_measured


def build_generator(config: RunConfig):
    """The generator, with new weights.

    Raises:
        InputError: Names the key.
    """
    provided = {"audio": dataclasses.asdict(config.audio), "dtype": config.trainer.precision}
    return registry.build(registry.GENERATORS, config.generator, "generator", provided=provided)


def build_trainer(config: RunConfig, new: bool = True) -> Trainer:
    """A compiled trainer; to be called in the scope of its strategy.

    Args:
        config: Of the run.
        new: Whether the run begins, so that weights of other networks are read if it is to begin
            with these. The checkpoint of a run that goes on holds its own.

    Raises:
        InputError: Names the key.
    """
    settings = config.trainer
    generator = build_generator(config)
    generator.rematerialization = settings.rematerialization
    discriminators = build_discriminators(
        config.discriminator, settings.precision, config.data.segment_length
    )
    names = discriminators.sub_discriminators if discriminators else ()
    loss = build_multi_loss(
        config.loss, config.audio.sample_rate, config.data.segment_length, names
    )
    arguments = {"loss": loss, "jit_compile": settings.jit_compile}
    if discriminators is None:
        trainer = ReconstructionTrainer(generator)
    else:
        trainer = AdversarialTrainer(
            generator, discriminators, settings.discriminator_start, settings.discriminator_warmup
        )
        arguments["discriminator_loss"] = build_discriminator_loss(loss)
        arguments["discriminator_optimizer"] = build_discriminator_optimizer(config)
    if new and settings.pretrained:
        path = user_path(settings.pretrained)
        path = next(generators_of(path), path / GENERATOR) if path.is_dir() else path
        _begin_with(generator, load_generator, path, "trainer.pretrained")
    if new and settings.pretrained_discriminators:
        path = user_path(settings.pretrained_discriminators)
        key = "trainer.pretrained_discriminators"
        _begin_with(discriminators, load_discriminators, path, key)
    trainer.compile(build_optimizer(config), **arguments)
    return trainer


def build_callbacks(config: RunConfig, measured: Mapping[str, bool]) -> list:
    """Those of `{NAME: {callback: CALLBACK, argument: value, ...}, ...}`.

    What one monitors, "val_NAME", must be measured, and Keras is told which way is up.

    Args:
        config: Of the run.
        measured: Of `vocoder.training.validation.directions`.

    Raises:
        InputError: Names the key.
    """
    found = []
    for name, node in config.callbacks.items():
        key = f"callbacks.{name}"
        if not isinstance(node, dict):
            raise InputError(f"{key}: must be a mapping such as {{callback: early_stopping}}")
        kinds = {"min_delta": Number}  # whose default is a whole number
        callback = registry.build(registry.CALLBACKS, node, key, "callback", kinds=kinds)
        if monitor := getattr(callback, "monitor", None):
            name = monitor.removeprefix("val_")
            check_measured(name, f"{key}.monitor", measured)
            if "mode" not in node:
                callback.mode = "max" if measured[name] else "min"
        found.append(callback)
    return found


def _begin_with(network, load, path, key):
    """Copies the weights of a `.keras` file into a network of the same shape."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        adopt_weights(load(path), network)
    except (InputError, ValueError) as error:
        raise InputError(f"{key}: {error}") from error
