"""AdamW and its learning rate, by Keras' own means."""

import dataclasses
import math

import keras
from keras import ops

from vocoder import registry
from vocoder.config import TrainerConfig


@keras.saving.register_keras_serializable("vocoder")
class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW, whose moving averages are those of the weights after each update.

    Keras' own takes them at every call, also where gradients are only accumulated, so that an
    update counts as many times as batches share it.
    """

    def _update_model_variables_moving_average(self, trainable_variables):
        average = super()._update_model_variables_moving_average
        if not self.gradient_accumulation_steps:
            average(trainable_variables)
            return
        updated = (self._iterations + 1) % self.gradient_accumulation_steps == 0
        ops.cond(updated, lambda: average(trainable_variables), lambda: None)

    def finalize_variable_values(self, var_list):
        """Leaves the weights as they are at the end of `fit`; Keras would make them the averages.

        Training goes on from them, be it in another `fit` or from a checkpoint.
        """

    def pass_to(self, share: float) -> None:
        """Tells the schedule which share of the run is over, from 0 to 1."""
        if isinstance(self._learning_rate, Cosine):
            self._learning_rate.passed.assign(share)


@keras.saving.register_keras_serializable("vocoder")
class Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine from `rate` down to `final` of it, after a linear warm-up from 0.

    What is over of it is what is over of its steps or, if that is more, of the run (`passed`),
    which may end before them by its minutes. Only the warm-up counts steps alone.

    Args:
        rate: The highest.
        steps: Steps of the run.
        warmup_steps: How many of its own the warm-up takes.
        final: Share of the rate that is left at the end.
        begin: Step of the run that is its first.

    Attributes:
        passed: Variable, which share of the run is over.
    """

    def __init__(self, rate, steps, warmup_steps=0, final=0.0, begin=0):
        super().__init__()
        self.rate = rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.final = final
        self.begin = begin
        self.passed = keras.Variable(
            0.0, trainable=False, dtype="float32", aggregation="only_first_replica"
        )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        run = self.passed * self.steps - self.begin
        over = ops.maximum(step, run) - self.warmup_steps
        over = ops.clip(over / (self.steps - self.begin - self.warmup_steps), 0.0, 1.0)
        rate = self.final + (1 - self.final) * (1 + ops.cos(math.pi * over)) / 2
        if self.warmup_steps:
            rate = rate * ops.minimum(step / self.warmup_steps, 1.0)
        return self.rate * rate

    def get_config(self):
        names = ("rate", "steps", "warmup_steps", "final", "begin")
        return {name: getattr(self, name) for name in names}


def constant(trainer: TrainerConfig, begin: int):
    """The same rate all the way."""
    return trainer.learning_rate


def exponential(trainer: TrainerConfig, begin: int):
    """`decay_rate` for every `decay_steps` steps, in stairs, as HiFi-GAN's 0.999 an epoch.

    It has no end that minutes could bring nearer.
    """
    return keras.optimizers.schedules.ExponentialDecay(
        trainer.learning_rate, trainer.decay_steps, trainer.decay_rate, staircase=True
    )


def cosine(trainer: TrainerConfig, begin: int):
    """Linear warm-up from 0, then half a cosine down to `final_rate` of it at the run's end."""
    return Cosine(
        trainer.learning_rate, trainer.max_steps, trainer.warmup_steps, trainer.final_rate, begin
    )


def build_optimizer(trainer: TrainerConfig, begin: int = 0) -> AdamW:
    """AdamW as the config asks for it.

    Args:
        begin: Step of the run that is the optimizer's first.

    Raises:
        InputError: The schedule is unknown.
    """
    schedule = registry.find(registry.SCHEDULES, trainer.schedule, "trainer.schedule")
    accumulation = trainer.gradient_accumulation_steps
    return AdamW(
        schedule(trainer, begin),
        beta_1=trainer.beta_1,
        beta_2=trainer.beta_2,
        weight_decay=trainer.weight_decay,
        global_clipnorm=trainer.global_clipnorm,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
        use_ema=trainer.ema_momentum is not None,
        ema_momentum=0.99 if trainer.ema_momentum is None else trainer.ema_momentum,
    )


def build_discriminator_optimizer(trainer: TrainerConfig) -> AdamW:
    """That of the discriminators: the same, over the steps that they are trained, with no average.

    Raises:
        InputError: The schedule is unknown.
    """
    rate = trainer.discriminator_learning_rate or trainer.learning_rate
    settings = dataclasses.replace(trainer, learning_rate=rate, ema_momentum=None)
    return build_optimizer(settings, begin=trainer.discriminator_start)
