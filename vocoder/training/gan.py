"""Adversarial training: a generator against discriminators, each with an optimizer of its own."""

import keras
import tensorflow as tf

from vocoder.losses.build import FEATURES, WAVEFORM
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
        discriminators: `vocoder.discriminators.Discriminators`, built.
        start: Up to this step the generator learns from the reconstruction losses alone.
        warmup: For so many steps more it still does, while the discriminators are trained.
    """

    def __init__(self, generator, discriminators, start=0, warmup=0):
        super().__init__(generator)
        # Past Keras' tracking, which would count its weights among those of `self.optimizer`.
        self.__dict__["discriminators"] = discriminators
        self.start = start
        self.warmup = warmup
        self.discriminator_norm = keras.metrics.Mean("discriminator_gradient_norm", dtype="float32")

    def compile(self, optimizer, discriminator_optimizer, discriminator_loss, **arguments):
        """As `keras.Model.compile`, with `MultiLoss`es of `vocoder.losses.build`.

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

    def make_train_function(self, force=False):
        """A function of an iterator, which does what the step is due for (`at_step`)."""
        if self.train_function is None or force:
            functions = {
                phase: self._function(step)
                for phase, step in {
                    "reconstruction": self._reconstruction_step,
                    "warmup": self._warmup_step,
                    "adversarial": self.train_step,
                }.items()
            }
            self.train_function = lambda iterator: functions[self.phase](iterator)

    phase = "adversarial"

    def at_step(self, step):
        if step < self.start:
            self.phase = "reconstruction"
        else:
            self.phase = "warmup" if step < self.start + self.warmup else "adversarial"

    def train_step(self, data):
        return self._step(data, True, self._adversarial)

    def _warmup_step(self, data):
        return self._step(data, True, self._reconstruction)

    def _reconstruction_step(self, data):
        return self._step(data, False, self._reconstruction)

    def _step(self, data, discriminate, gradients_of):
        made = {}  # the generator's tape, waveforms and added losses of every replica
        stepped = True
        with self.all_or_nothing() as logs:
            if discriminate:
                before = self.keep(self._of_discriminators)
                values, stepped = self._step_discriminators(made, data)
                logs |= values
            else:
                self.on_replicas(lambda data: self._generate(made, data), data)
            gradients, values = self.on_replicas(lambda data: gradients_of(made, data), data)
            values, both = self._step_generator(gradients, values, stepped)
            logs |= values
            if discriminate:
                put_back_unless(tf.logical_or(both, tf.logical_not(stepped)), before)
        return logs

    @property
    def _of_discriminators(self):
        return self.discriminators.trainable_variables + self.discriminator_optimizer.variables

    @property
    def _passed_through(self):
        return [*super()._passed_through, *self.discriminators.non_trainable_variables]

    def _step_discriminators(self, made, data):
        def step(data):
            return self._discriminate(self._generate(made, data), data)

        gradients, values = self.on_replicas(step, data)
        variables = self.discriminators.trainable_variables
        return self.update(
            self.discriminator_optimizer, variables, gradients, values, self.discriminator_norm
        )

    def _step_generator(self, gradients, values, allowed):
        variables = self.generator.trainable_variables
        return self.update(
            self.optimizer, variables, gradients, values, self.gradient_norm, allowed
        )

    def _generate(self, made, data):
        mel, _ = data
        with tf.GradientTape() as tape:
            waveform = self(mel, training=True)
            added = self.generator.losses
        made[_replica()] = tape, waveform, added
        return waveform

    def _discriminate(self, synthesised, data):
        _, recorded = data
        with tf.GradientTape() as tape:
            both = tf.concat([recorded, tf.stop_gradient(synthesised)], axis=0)
            maps = self.discriminators(both, training=True)
            real, fake = (
                keras.tree.map_structure(lambda m, i=i: tf.split(m, 2)[i], maps) for i in (0, 1)
            )
            loss = self.discriminator_loss(real, fake)
            scaled = self.discriminator_optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.discriminators.trainable_variables)
        return gradients, dict(self.discriminator_loss.values)

    def _adversarial(self, made, data):
        """Gradients of all losses, through the discriminators as they are."""
        _, recorded = data
        real = self.discriminators(recorded)
        return self._through(made, data, lambda waveform: (real, self.discriminators(waveform)))

    def _reconstruction(self, made, data):
        return self._through(made, data, None)

    def _through(self, made, data, features):
        """Gradients of the loss of waveforms that have been made, and its values."""
        mel, recorded = data
        generator_tape, waveform, added = made[_replica()]
        y_true, y_pred = self._measured(recorded), self._measured(waveform)
        # The discriminators' weights are no business of this tape: only what was made is.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([waveform, *added])
            if features is not None:
                y_true[FEATURES], y_pred[FEATURES] = features(waveform)
            loss, values = self._total(self.loss(y_true, y_pred), added, mel)
            scaled = self.optimizer.scale_loss(loss)
        gradients = generator_tape.gradient(
            [waveform, *added],
            self.generator.trainable_variables,
            tape.gradient(scaled, [waveform, *added]),
        )
        return gradients, values | self.loss.values

    def _measured(self, waveform):
        return {WAVEFORM: waveform, FEATURES: None}


def _replica():
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))
