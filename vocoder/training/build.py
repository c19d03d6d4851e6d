"""From a config to a trainer that `fit` can run."""

import dataclasses

from vocoder import registry
from vocoder.config import RunConfig
from vocoder.losses.build import build_multi_loss
from vocoder.training.optimizer import build_optimizer
from vocoder.training.trainer import ReconstructionTrainer, Trainer


def build_generator(config: RunConfig):
    """The generator, with new weights.

    Raises:
        InputError: Names the key.
    """
    provided = {"audio": dataclasses.asdict(config.audio), "dtype": config.trainer.precision}
    return registry.build(registry.GENERATORS, config.generator, "generator", provided=provided)


def build_trainer(config: RunConfig) -> Trainer:
    """A compiled trainer; to be called in the scope of its strategy.

    Raises:
        InputError: Names the key.
    """
    loss = build_multi_loss(config.loss, config.audio.sample_rate, config.data.segment_length)
    optimizer = build_optimizer(config.trainer)
    trainer = ReconstructionTrainer(build_generator(config))
    trainer.compile(optimizer, loss=loss, jit_compile=config.trainer.jit_compile)
    return trainer
