"""The models that `fit` runs: a generator, and how its weights are stepped."""

import contextlib

import keras
import numpy as np
import tensorflow as tf


class Trainer(keras.Model):
    """What every trainer is: a generator, with steps that are right on any number of devices.

    Batches are (mel, waveform): (batch, frames, n_mels) and (batch, samples). A subclass defines
    `train_step`, which sees the batch of all replicas: what each does with its share runs
    `on_replicas`, and then their gradients go through `update` together. So gradients are clipped
    and accumulated after they have been summed, and a NaN on one replica stops the step on all.
    Keras' own step does these per replica, and its optimizers can't be called in a condition there.

    A step at which a loss, a part or the norm of the gradients is NaN or infinite leaves weights
    and optimizer as they were. That norm, before clipping, is a metric, `gradient_norm`.

    Args:
        generator: A `vocoder.generators.Generator`.

    Attributes:
        wishes: Variables of this process alone, by name, such as for an end of the run. The logs of
            a step have their means over all replicas, so that all workers learn of one's wish at
            the same step.
    """

    def __init__(self, generator):
        # Compiling looks at this model's policy to see whether the loss is to be scaled.
        super().__init__(name="trainer", dtype=generator.dtype_policy)
        self.generator = generator
        self.wishes = {}
        self.total = keras.metrics.Mean("loss", dtype="float32")
        self.gradient_norm = keras.metrics.Mean("gradient_norm", dtype="float32")
        if not generator.built:
            generator.build((None, None, generator.n_mels))
        self.built = True

    def call(self, mel, training=False):
        return self.generator(mel, training=training)

    def compile(self, optimizer, **arguments):
        super().compile(optimizer, **arguments)
        # A checkpoint needs the optimizer's slots to restore into.
        self.optimizer.build(self.generator.trainable_variables)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self.train_function = self._function(self.train_step)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._function(self.test_step)

    def _function(self, step):
        if self.run_eagerly:
            return lambda iterator: step(next(iterator))
        compiled = tf.function(step, jit_compile=self.jit_compile, autograph=False)
        return tf.function(lambda iterator: compiled(next(iterator)), autograph=False)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing, since all variables are there already.

        Keras' own fails under `MultiWorkerMirroredStrategy`, and so does the mean that its step
        functions take over the logs of the replicas: github.com/keras-team/keras/issues/20585. Here
        the logs are read outside of the replicas, where TensorFlow sums the state of metrics.
        """

    def on_replicas(self, function, *arguments):
        """Runs `function` on every replica, with its part of the arguments."""
        return self.distribute_strategy.run(function, args=arguments)

    def update(self, optimizer, variables, gradients, values, norms, allowed=True):
        """Steps an optimizer, if everything is finite.

        Args:
            optimizer: Built for `variables`.
            gradients: Of the loss that Keras has scaled for replicas and precision, per replica.
            values: What the step computed, scalars by name, per replica.
            norms: Metric that gets the norm of the gradients.
            allowed: False, here or as a tensor, forbids it.

        Returns:
            The means of `values` over the replicas, with the norm under the name of its metric, and
            with those of `wishes` if the optimizer is the generator's, which every step calls once;
            and whether there was a step.
        """
        strategy = self.distribute_strategy
        destinations = [variable.value for variable in variables]
        pairs = list(zip(gradients, destinations, strict=True))
        gradients = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
        # Scaling the loss scaled its gradients.
        scale = tf.cast(optimizer.scale_loss(tf.constant(1.0)), "float32")
        norm = tf.linalg.global_norm([tf.convert_to_tensor(g) for g in gradients]) / scale
        wishes = self.wishes if optimizer is self.optimizer else {}
        logs = self._means(values, wishes) | {norms.name: norm}
        judged = [value for name, value in logs.items() if self._is_judged(name)]

        def apply():
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return True

        allowed = tf.reduce_all([allowed, *tf.unstack(tf.math.is_finite(judged), len(judged))])
        tf.cond(allowed, apply, lambda: False)
        finite = tf.math.is_finite(norm)
        counted = tf.where(finite, norm, 0.0), tf.cast(finite, "float32")
        self.on_replicas(lambda *counted: norms.update_state(*counted), *counted)
        return logs, allowed

    def _means(self, values, wishes):
        """The means over all replicas, in one reduction."""
        names = [*values, *wishes]
        vector = self.on_replicas(lambda v: tf.stack([*v.values(), *wishes.values()]), values)
        reduced = self.distribute_strategy.reduce(tf.distribute.ReduceOp.MEAN, vector, axis=None)
        return dict(zip(names, tf.unstack(reduced, len(names)), strict=True))

    def _is_judged(self, name):
        # With float16, infinite gradients are a matter of the loss scale, which then is halved.
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        return not (scaled and name.endswith("gradient_norm"))

    def nonfinite(self, logs) -> list[str]:
        """What was NaN or infinite in the logs of a step, so that it was skipped."""
        return [n for n, value in logs.items() if self._is_judged(n) and not np.isfinite(value)]

    def test_step(self, data):
        self.on_replicas(self._test_replica, data)
        measured = {"loss", *self.loss.values}
        means = self.get_metrics_result()
        return {name: value for name, value in means.items() if name in measured}

    def _test_replica(self, data):
        mel, waveform = data
        y_pred = self(mel, training=False)
        self._track(self.loss(self._measured(waveform), self._measured(y_pred)), mel)

    def _measured(self, waveform):
        """What the loss is called with in validation."""
        return waveform

    def _track(self, loss, mel):
        """Adds a loss, as Keras has scaled it for replicas, to the mean of the total."""
        self.total.update_state(self._unscaled(loss), sample_weight=tf.shape(mel)[0])
        return loss

    def _unscaled(self, loss):
        return loss * self.distribute_strategy.num_replicas_in_sync

    def at_step(self, step: int) -> None:
        """Tells which step comes next, counted from 0 over all sessions of the run."""

    @property
    def state(self) -> dict:
        """What a checkpoint of training holds, by name."""
        return {"model": self.generator, "optimizer": self.optimizer}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means that a curve shows: of the total, of every part, and of the gradient's norm."""
        return [self.total, *self.loss.metrics, self.gradient_norm]

    @contextlib.contextmanager
    def averaged_weights(self):
        """Puts the weights' moving averages in their place, if there are any yet."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not optimizer.use_ema or optimizer.iterations.numpy() == 0:  # until then they are 0
            yield
            return
        # `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which loses bits.
        trained = [variable.numpy() for variable in self.generator.trainable_variables]
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(self.generator.trainable_variables, averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(self.generator.trainable_variables, trained, strict=True):
                variable.assign(value)


class ReconstructionTrainer(Trainer):
    """Trains a generator on the distance between what it makes and the recording."""

    def train_step(self, data):
        gradients, values = self.on_replicas(self._gradients, data)
        variables = self.generator.trainable_variables
        return self.update(self.optimizer, variables, gradients, values, self.gradient_norm)[0]

    def _gradients(self, data):
        mel, waveform = data
        with tf.GradientTape() as tape:
            loss = self._track(self.loss(waveform, self(mel, training=True)), mel)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.generator.trainable_variables)
        return gradients, {"loss": self._unscaled(loss), **self.loss.values}
