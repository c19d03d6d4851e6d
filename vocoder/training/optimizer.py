"""AdamW and its learning rate, by Keras' own means."""

import dataclasses

import keras

from vocoder import registry
from vocoder.config import TrainerConfig


def constant(trainer: TrainerConfig):
    """The same rate all the way."""
    return trainer.learning_rate


def exponential(trainer: TrainerConfig):
    """`decay_rate` for every `decay_steps` steps, in stairs, as HiFi-GAN's 0.999 an epoch."""
    return keras.optimizers.schedules.ExponentialDecay(
        trainer.learning_rate, trainer.decay_steps, trainer.decay_rate, staircase=True
    )


def cosine(trainer: TrainerConfig):
    """Linear warm-up from 0, then half a cosine down to `final_rate` of it at `max_steps`."""
    if not trainer.warmup_steps:
        return keras.optimizers.schedules.CosineDecay(
            trainer.learning_rate, trainer.max_steps, alpha=trainer.final_rate
        )
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        trainer.max_steps - trainer.warmup_steps,
        alpha=trainer.final_rate,
        warmup_target=trainer.learning_rate,
        warmup_steps=trainer.warmup_steps,
    )


def build_optimizer(trainer: TrainerConfig) -> keras.optimizers.Optimizer:
    """AdamW as the config asks for it.

    Raises:
        InputError: The schedule is unknown.
    """
    schedule = registry.find(registry.SCHEDULES, trainer.schedule, "trainer.schedule")
    accumulation = trainer.gradient_accumulation_steps
    return keras.optimizers.AdamW(
        schedule(trainer),
        beta_1=trainer.beta_1,
        beta_2=trainer.beta_2,
        weight_decay=trainer.weight_decay,
        global_clipnorm=trainer.global_clipnorm,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
        use_ema=trainer.ema_momentum is not None,
        ema_momentum=trainer.ema_momentum or 0.99,
    )


def build_discriminator_optimizer(trainer: TrainerConfig) -> keras.optimizers.Optimizer:
    """That of the discriminators: the same, over the steps that they are trained, with no average.

    Raises:
        InputError: The schedule is unknown.
    """
    return build_optimizer(
        dataclasses.replace(
            trainer,
            learning_rate=trainer.discriminator_learning_rate or trainer.learning_rate,
            max_steps=trainer.max_steps - trainer.discriminator_start,
            ema_momentum=None,
        )
    )
