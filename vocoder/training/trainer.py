"""The models that `fit` runs: a generator, and how its weights are stepped."""

import contextlib
import logging

import keras
import numpy as np
import tensorflow as tf

from vocoder.errors import InputError
from vocoder.training.optimizer import AdamW

log = logging.getLogger("vocoder")

# The curve of what layers add to the loss by themselves.
ADDED = "added_losses"


class Trainer(keras.Model):
    """What every trainer is: a generator, with steps that are right on any number of devices.

    Batches are (mel, waveform): (batch, frames, n_mels) and (batch, samples). A subclass defines
    `train_step`, which sees the batch of all replicas: what each does with its share runs
    `on_replicas`, and then their gradients go through `update` together. So gradients are clipped
    and accumulated after they have been summed, and a NaN on one replica stops the step on all.
    Keras' own step does these per replica, and its optimizers can't be called in a condition there.

    A step at which a loss, a part or the norm of the gradients is NaN or infinite leaves everything
    as it was: weights, optimizers, batch statistics, and the means that the curves show. That norm,
    before clipping, is a metric, `gradient_norm`.

    What layers of the generator add to the loss, by `add_loss` or a regulariser, counts in the
    total and is a metric, `added_losses`. A variable without a gradient is left out, with a
    warning.

    Args:
        generator: A `vocoder.generators.Generator`.

    Attributes:
        wishes: Variables of this process alone, by name, such as for an end of the run. The logs of
            a step have their means over all replicas, so that all workers learn of one's wish at
            the same step.
        seconds: How long the run had trained, over all sessions, at its last checkpoint.
    """

    def __init__(self, generator):
        # Compiling looks at this model's policy to see whether the loss is to be scaled.
        super().__init__(name="trainer", dtype=generator.dtype_policy)
        self.generator = generator
        self.wishes = {}
        self.total = keras.metrics.Mean("loss", dtype="float32")
        self.gradient_norm = keras.metrics.Mean("gradient_norm", dtype="float32")
        self.added = keras.metrics.Mean(ADDED, dtype="float32")
        self.adds_losses = False
        self.seconds = 0.0
        self._without_gradient = set()
        if not generator.built:
            generator.build((None, None, generator.n_mels))
        self.built = True

    def call(self, mel, training=False):
        return self.generator(mel, training=training)

    def compile(self, optimizer, **arguments):
        super().compile(optimizer, **arguments)
        # A checkpoint needs the optimizer's slots to restore into.
        self.optimizer.build(self.generator.trainable_variables)
        with keras.StatelessScope(collect_losses=True) as scope:  # whether there is one more curve
            self.generator(tf.zeros((1, 32, self.generator.n_mels)), training=True)
        self.adds_losses = bool(scope.losses or self.generator.losses)

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

    def keep(self, variables) -> list:
        """What Keras' variables are now, on every replica of this process, for `put_back`."""
        replicas = self.distribute_strategy.experimental_local_results
        return [(one, one.value()) for v in variables for one in replicas(v.value)]

    @contextlib.contextmanager
    def all_or_nothing(self):
        """What a step changes on its way, it changes only if all that is in its logs is finite.

        Weights and optimizers are not meant: those are stepped by `update`.

        Yields:
            The logs, to be filled.
        """
        kept = self.keep(self._passed_through)
        logs = {}
        yield logs
        put_back_unless(self._finite(logs), kept)

    @property
    def _passed_through(self):
        """Variables that change before it is known whether a step will be made."""
        return [*self.generator.non_trainable_variables, *self.metrics_variables]

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
            and whether the variables were stepped.
        """
        strategy = self.distribute_strategy
        pairs = self._with_gradient(gradients, variables)
        destinations = [(gradient, variable.value) for gradient, variable in pairs]
        gradients = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, destinations)
        # Scaling the loss scaled its gradients.
        scale = tf.cast(optimizer.scale_loss(tf.constant(1.0)), "float32")
        norm = tf.linalg.global_norm([tf.convert_to_tensor(g) for g in gradients]) / scale
        wishes = self.wishes if optimizer is self.optimizer else {}
        logs = self._means(values, wishes) | {norms.name: norm}

        def apply():
            optimizer.apply_gradients(
                [(gradient, v) for gradient, (_, v) in zip(gradients, pairs, strict=True)]
            )
            return tf.math.is_finite(norm)  # or the optimizer has lowered the scale of the loss

        stepped = tf.cond(
            tf.logical_and(allowed, self._finite(logs)), apply, lambda: tf.constant(False)
        )
        finite = tf.math.is_finite(norm)
        counted = tf.where(finite, norm, 0.0), tf.cast(finite, "float32")
        self.on_replicas(lambda *counted: norms.update_state(*counted), *counted)
        return logs, stepped

    def _with_gradient(self, gradients, variables):
        """Pairs of both, without the variables that have no part in the loss."""
        pairs = list(zip(gradients, variables, strict=True))
        for path in (v.path for gradient, v in pairs if gradient is None):
            if path not in self._without_gradient:
                self._without_gradient.add(path)
                log.warning("%s: has no part in the loss, so that it is not trained", path)
        pairs = [(gradient, v) for gradient, v in pairs if gradient is not None]
        if not pairs:
            raise InputError("loss: it depends on no variable of the network, which can't learn")
        return pairs

    def _means(self, values, wishes):
        """The means over all replicas, in one reduction."""
        names = [*values, *wishes]
        vector = self.on_replicas(lambda v: tf.stack([*v.values(), *wishes.values()]), values)
        reduced = self.distribute_strategy.reduce(tf.distribute.ReduceOp.MEAN, vector, axis=None)
        return dict(zip(names, tf.unstack(reduced, len(names)), strict=True))

    def _finite(self, logs):
        judged = [value for name, value in logs.items() if self._is_judged(name)]
        return tf.reduce_all(tf.math.is_finite(tf.stack(judged) if judged else []))

    def _is_judged(self, name):
        # With float16, infinite gradients are a matter of the loss scale, which then is halved.
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        return not (scaled and name.endswith("gradient_norm"))

    def nonfinite(self, logs) -> list[str]:
        """What was NaN or infinite in the logs of a step, so that it was skipped."""
        return [n for n, value in logs.items() if self._is_judged(n) and not np.isfinite(value)]

    def test_step(self, data):
        self.on_replicas(self._test_replica, data)
        measured = {"loss", *self.loss.values} | ({ADDED} if self.adds_losses else set())
        means = self.get_metrics_result()
        return {name: value for name, value in means.items() if name in measured}

    def _test_replica(self, data):
        mel, waveform = data
        y_pred = self(mel, training=False)
        loss = self.loss(self._measured(waveform), self._measured(y_pred))
        self._total(loss, self.generator.losses, mel)

    def _measured(self, waveform):
        """What the loss is called with in validation."""
        return waveform

    def _total(self, loss, added, mel):
        """The total, with the metrics of it.

        Args:
            loss: Of `self.loss`, as Keras has scaled it for replicas.
            added: What layers add to it, not scaled.
            mel: (batch, frames, n_mels).

        Returns:
            The total, scaled likewise, and what of it is to be logged by name.
        """
        examples, values = tf.shape(mel)[0], {}
        if added:
            values[ADDED] = sum(tf.reduce_sum(tf.cast(one, loss.dtype)) for one in added)
            self.added.update_state(values[ADDED], sample_weight=examples)
            loss = loss + values[ADDED] / self.distribute_strategy.num_replicas_in_sync
        values["loss"] = loss * self.distribute_strategy.num_replicas_in_sync
        self.total.update_state(values["loss"], sample_weight=examples)
        return loss, values

    def pass_to(self, share: float) -> None:
        """Tells the schedules which share of the run is over, from 0 to 1."""
        for optimizer in self.optimizers:
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            if isinstance(optimizer, AdamW):
                optimizer.pass_to(share)

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        return [self.optimizer]

    def at_step(self, step: int) -> None:
        """Tells which step comes next, counted from 0 over all sessions of the run."""

    @property
    def state(self) -> dict:
        """What a checkpoint of training holds, by name."""
        weights = set(map(id, self.generator.weights))
        seeds = [v for v in self.generator.variables if id(v) not in weights]
        state = {"model": self.generator, "optimizer": self.optimizer}
        # TensorFlow finds those of random layers nowhere.
        return state | ({"seeds": seeds} if seeds else {})

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means that a curve shows: of the total, of every part, and of the gradient's norm."""
        added = [self.added] if self.adds_losses else []
        return [self.total, *self.loss.metrics, *added, self.gradient_norm]

    def means(self) -> dict[str, float]:
        """What the metrics have gathered since they were reset, without those that met nothing."""
        return {m.name: float(m.result()) for m in self.metrics if m.count.numpy()}

    @contextlib.contextmanager
    def means_aside(self):
        """Puts what the metrics have gathered aside, for an evaluation."""
        kept = self.keep(self.metrics_variables)
        try:
            yield
        finally:
            put_back(kept)

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
        with self.all_or_nothing() as logs:
            gradients, values = self.on_replicas(self._gradients, data)
            variables = self.generator.trainable_variables
            logs |= self.update(self.optimizer, variables, gradients, values, self.gradient_norm)[0]
        return logs

    def _gradients(self, data):
        mel, waveform = data
        with tf.GradientTape() as tape:
            loss = self.loss(waveform, self(mel, training=True))
            loss, values = self._total(loss, self.generator.losses, mel)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.generator.trainable_variables)
        return gradients, values | self.loss.values


def put_back(kept) -> None:
    """Makes variables what they were when `Trainer.keep` was called."""
    for variable, value in kept:
        variable.assign(value)


def put_back_unless(condition, kept) -> None:
    """Likewise, in a graph too."""

    def undo():
        put_back(kept)
        return True

    tf.cond(condition, lambda: False, undo)
