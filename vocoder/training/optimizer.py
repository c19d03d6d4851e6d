"""Optimizers and the schedules of their learning rates, by Keras' own means."""

import math
from typing import Annotated

import keras
from keras import ops
from pydantic import Field

from vocoder import registry
from vocoder.config import RunConfig
from vocoder.errors import InputError
from vocoder.kinds import Flag, Number, Whole, checked


class Trained:
    """What every optimizer here has beside what Keras' has.

    Its moving averages are those of the weights after each update. Keras takes them at every call,
    also where gradients are only accumulated, so that an update counts as many times as batches
    share it.
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

    def go_to(self, share: float) -> None:
        """Tells the schedule which share of the run is over, from 0 to 1."""
        if isinstance(self._learning_rate, Cosine):
            self._learning_rate.passed.assign(share)


@keras.saving.register_keras_serializable("vocoder")
class Adam(Trained, keras.optimizers.Adam):
    """Kingma and Ba, arXiv:1412.6980."""


@keras.saving.register_keras_serializable("vocoder")
class AdamW(Trained, keras.optimizers.AdamW):
    """Loshchilov and Hutter, arXiv:1711.05101: HiFi-GAN's."""


@keras.saving.register_keras_serializable("vocoder")
class Lion(Trained, keras.optimizers.Lion):
    """Chen et al., arXiv:2302.06675."""


@keras.saving.register_keras_serializable("vocoder")
class Muon(Trained, keras.optimizers.Muon):
    """Jordan et al., kellerjordan.github.io/posts/muon; Adam for what is no matrix."""


@keras.saving.register_keras_serializable("vocoder")
class SGD(Trained, keras.optimizers.SGD):
    """Gradient descent, with momentum if there is any."""


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


def constant(learning_rate):
    """The same rate all the way."""
    return learning_rate


def exponential(learning_rate, decay_rate, decay_steps):
    """`decay_rate` for every `decay_steps` steps, in stairs, as HiFi-GAN's 0.999 an epoch.

    It has no end that minutes could bring nearer.
    """
    return keras.optimizers.schedules.ExponentialDecay(
        learning_rate, decay_steps, decay_rate, staircase=True
    )


def cosine(learning_rate, warmup_steps, final_rate, max_steps, begin):
    """Linear warm-up from 0, then half a cosine down to `final_rate` of it at the run's end.

    Raises:
        ValueError: "warmup_steps: reason".
    """
    if warmup_steps >= max_steps - begin:
        raise ValueError(
            f"warmup_steps: {warmup_steps} must be below the {max_steps - begin} steps"
        )
    return Cosine(learning_rate, max_steps, warmup_steps, final_rate, begin)


# Of what kind and in which range the arguments are, of which Keras looks at few.
POSITIVE, SHARE = Annotated[Number, Field(gt=0)], Annotated[Number, Field(ge=0, lt=1)]
FROM_0, UP_TO_1 = Annotated[Number, Field(ge=0)], Annotated[Number, Field(ge=0, le=1)]
BETAS = "beta_1", "beta_2", "adam_beta_1", "adam_beta_2", "momentum", "ema_momentum"
LIMITS = "weight_decay", "adam_weight_decay", "clipnorm", "clipvalue", "global_clipnorm"
ARGUMENTS = {
    **dict.fromkeys(("learning_rate", "adam_lr_ratio", "epsilon"), POSITIVE),
    **dict.fromkeys(BETAS, SHARE),
    **dict.fromkeys(LIMITS, FROM_0 | None),
    **dict.fromkeys(("decay_rate", "final_rate"), UP_TO_1),
    **dict.fromkeys(("use_ema", "nesterov", "amsgrad"), Flag),
    "gradient_accumulation_steps": Annotated[Whole, Field(ge=1)] | None,
    "decay_steps": Annotated[Whole, Field(ge=1)],
    "warmup_steps": Annotated[Whole, Field(ge=0)],
}
# Keras' arguments that are the run's own business.
NOT_OURS = ("loss_scale_factor", "ema_overwrite_frequency", "exclude_layers", "exclude_embeddings")


def build_optimizer(config: RunConfig) -> keras.optimizers.Optimizer:
    """That of the generator, with its schedule.

    Raises:
        InputError: Names the key.
    """
    return _build(config, config.optimizer, config.schedule, "", begin=0)


def build_discriminator_optimizer(config: RunConfig) -> keras.optimizers.Optimizer:
    """That of the discriminators, over the steps that they are trained, with no average.

    It is as the generator's but for what `discriminator_optimizer` says, and so is its schedule.
    If these name another optimizer or schedule, all of it is theirs.

    Raises:
        InputError: Names the key.
    """
    optimizer = _inheriting(config.discriminator_optimizer, config.optimizer)
    schedule = _inheriting(config.discriminator_schedule, config.schedule)
    begin = config.trainer.discriminator_start
    if begin >= config.trainer.max_steps:
        raise InputError(
            f"trainer.discriminator_start: {begin} leaves nothing of trainer.max_steps="
            f"{config.trainer.max_steps} to the discriminators"
        )
    return _build(config, optimizer | {"use_ema": False}, schedule, "discriminator_", begin)


def _inheriting(node, other) -> dict:
    return dict(node) if node.get("name", other.get("name")) != other.get("name") else other | node


def _build(config, node, schedule, prefix, begin):
    key, node = f"{prefix}optimizer", dict(node)
    for name in node:
        if name in NOT_OURS:
            raise InputError(f"{key}.{name}: not used here")
    if "learning_rate" not in node:
        raise InputError(f"{key}.learning_rate: missing; give {key}.learning_rate=RATE")
    run = {"max_steps": config.trainer.max_steps, "begin": begin}
    rate = node.pop("learning_rate")
    rate = {"learning_rate": checked(rate, ARGUMENTS["learning_rate"], f"{key}.learning_rate")}
    rate = registry.build(
        registry.SCHEDULES, schedule, f"{prefix}schedule", provided=run | rate, kinds=ARGUMENTS
    )
    if node.get("gradient_accumulation_steps") == 1:
        node["gradient_accumulation_steps"] = None  # which is Keras' word for it
    provided = {"learning_rate": rate}
    return registry.build(registry.OPTIMIZERS, node, key, provided=provided, kinds=ARGUMENTS)
