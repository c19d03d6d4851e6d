"""Adversarial training: a generator against discriminators, each with an optimizer of its own."""

import keras
import tensorflow as tf

from vocoder.losses.terms import FEATURES, WAVEFORM
from vocoder.training.trainer import Trainer, put_back_unless


class AdversarialTrainer(Trainer):
    """Trains a generator on reconstruction losses and against discriminators.

    A step makes waveforms once. The discriminators are stepped on these and on the recordings,
    which they see as one batch; then the generator is stepped on what the discriminators, as they
    are now, say of the same waveforms (Kong et al., arXiv:2010.05646). If that turns out not to be
    finite, or the gradients of one side are too large for float16, neither side has been stepped.
    Validation measures the reconstruction losses alone.

    Args:
        generator: A `vocoder.generators.Generator`.
        discriminators: `vocoder.discriminators.CombinedDiscriminator`, built.
        start: Up to this step the generator learns from the reconstruction losses alone.
        warmup: For so many steps more it still does, while the discriminators are trained.
    """

    def __init__(self, generator, discriminators, start=0, warmup=0):
        super().__init__(generator)
        self.discriminators = discriminators
        self.start = start
        self.warmup = warmup
        self.discriminator_norm = keras.metrics.Mean("discriminator_gradient_norm", dtype="float32")

    def compile(self, optimizer, discriminator_optimizer, discriminator_loss, **arguments):
        """As `keras.Model.compile`, with `MultiLoss`es of `vocoder.losses.terms`.

        Args:
            optimizer, loss: The generator's.
            discriminator_optimizer, discriminator_loss: The discriminators'.
        """
        super().compile(optimizer, **arguments)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            discriminator_optimizer = keras.optimizers.LossScaleOptimizer(discriminator_optimizer)
        discriminator_optimizer.build(self.discriminators.trainable_variables)
        self.discriminator_optimizer = discriminator_optimizer
        self.discriminator_loss = discriminator_loss

    @property
    def optimizers(self):
        return [*super().optimizers, self.discriminator_optimizer]

    @property
    def state(self):
        return super().state | {
            "discriminators": self.discriminators,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    @property
    def metrics(self):
        return [*super().metrics, *self.discriminator_loss.metrics, self.discriminator_norm]

    def _train_function(self):
        """A function of an iterator, which does what the step is due for."""
        steps = {
            "reconstruction": self._reconstruction_step,
            "warmup": self._warmup_step,
            "adversarial": self.train_step,
        }
        functions = {phase: self._function(step) for phase, step in steps.items()}
        return lambda iterator: functions[self.phase](iterator)

    @property
    def phase(self) -> str:
        """What the next step is for: "reconstruction", "warmup" or "adversarial"."""
        if self.step < self.start:
            return "reconstruction"
        return "warmup" if self.step < self.start + self.warmup else "adversarial"

    def train_step(self, data):
        return self._step(data, True, self._adversarial)

    def _warmup_step(self, data):
        return self._step(data, True, self._reconstruction)

    def _reconstruction_step(self, data):
        return self._step(data, False, self._reconstruction)

    def _step(self, data, discriminate, gradients_of):
        kept = self.keep(self.passed_through)
        logs, stepped = {}, True
        made = self.on_replicas(self._make, data)
        if discriminate:
            before = self.keep(self._of_discriminators)
            logs, stepped = self._update_discriminators(data, made)
        gradients, values = self.on_replicas(gradients_of, data, made)
        variables = self.generator.trainable_variables
        values, both = self.update(
            self.optimizer, variables, gradients, values, self.gradient_norm.name, stepped
        )
        if discriminate:
            put_back_unless(tf.logical_or(both, tf.logical_not(stepped)), before)
        return self.finish(logs | values, kept)

    def _update_discriminators(self, data, made):
        gradients, values = self.on_replicas(self._discriminate, data, made)
        variables, name = self.discriminators.trainable_variables, self.discriminator_norm.name
        return self.update(self.discriminator_optimizer, variables, gradients, values, name)

    @property
    def _of_discriminators(self):
        return self.discriminators.trainable_variables + self.discriminator_optimizer.variables

    @property
    def passed_through(self):
        return [*super().passed_through, *self.discriminators.non_trainable_variables]

    def _make(self, data):
        """Waveforms, what layers add to the loss, and the tape that has watched both being made."""
        features, _ = data
        with tf.GradientTape() as tape:
            waveform = self(features, training=True)
            added = self.generator.losses
        return waveform, added, tape

    def _discriminate(self, data, made):
        """Gradients of the discriminators' loss, and its values."""
        (_, recorded), (synthesised, *_) = data, made
        with tf.GradientTape() as tape:
            both = tf.concat([recorded, tf.stop_gradient(synthesised)], axis=0)
            maps = self.discriminators(both, training=True)
            real, fake = (
                keras.tree.map_structure(lambda m, i=i: tf.split(m, 2)[i], maps) for i in (0, 1)
            )
            loss, values = self.discriminator_loss.compute(real, fake)
            scaled = self.discriminator_optimizer.scale_loss(loss)
        return tape.gradient(scaled, self.discriminators.trainable_variables), values

    def _adversarial(self, data, made):
        """Gradients of all losses, through the discriminators as they are, and their values."""
        _, recorded = data
        return self._gradients(data, made, (self.discriminators(recorded), self.discriminators))

    def _reconstruction(self, data, made):
        return self._gradients(data, made, None)

    def _gradients(self, data, made, judged):
        (_, recorded), (waveform, added, generator_tape) = data, made
        y_true, y_pred = self._measured(recorded), self._measured(waveform)
        # The discriminators' weights are no business of this tape: only what was made is.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([waveform, *added])
            if judged is not None:
                real, discriminators = judged
                y_true[FEATURES], y_pred[FEATURES] = real, discriminators(waveform)
            loss, values = self._compute(y_true, y_pred, added)
            scaled = self.optimizer.scale_loss(loss)
        gradients = generator_tape.gradient(
            [waveform, *added],
            self.generator.trainable_variables,
            tape.gradient(scaled, [waveform, *added]),
        )
        return gradients, self.announce(values)

    def _measured(self, waveform):
        return {WAVEFORM: waveform, FEATURES: None}
