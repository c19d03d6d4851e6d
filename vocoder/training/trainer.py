"""The models that `fit` runs: a generator, and how its weights are stepped."""

import contextlib
import logging

import keras
import numpy as np
import tensorflow as tf

from vocoder.errors import InputError
from vocoder.training.optimizer import Trained

log = logging.getLogger("vocoder")

# The curve of what layers add to the loss by themselves.
ADDED = "added_losses"


class Trainer(keras.Model):
    """What every trainer is: a generator, with steps that are right on any number of devices.

    A Keras model: `compile`, `fit`, `evaluate` and callbacks are Keras'. Batches are (features,
    waveform): what the generator takes, by name, and (batch, samples). Two things are its own, as
    Keras' step can't be right on several replicas here: that clips and accumulates gradients before
    they are summed over the replicas, and its optimizers can't be called under a condition.

    - `train_step` sees the batch of all replicas: what each does with its share runs
      `on_replicas`, and their gradients go through `update` together. So gradients are clipped and
      accumulated after they have been summed, and a NaN on one replica stops the step on all.
    - A step at which a loss, a part or the norm of the gradients is NaN or infinite leaves
      everything as it was: weights, optimizers, batch statistics, metrics. That norm, before
      clipping, is a metric, `gradient_norm`.

    `evaluate` measures the weights' moving averages, if the optimizer has any. What layers of the
    generator add to the loss, by `add_loss` or a regulariser, counts in the total and is a metric,
    `added_losses`. A variable without a gradient is left out, with a warning.

    Args:
        generator: A `vocoder.generators.Generator`.

    Attributes:
        step: How many steps have been made, over all sessions of the run.
        seconds: How long they took.
        announced: Variables of this process alone, by name. The logs of a step have their means
            over all replicas, so that all workers learn of it at the same step.
        interrupted: Whether `fit` is about to end in the middle of an epoch, which then is not
            evaluated.
    """

    def __init__(self, generator):
        # Compiling looks at this model's policy to see whether the loss is to be scaled.
        super().__init__(name="trainer", dtype=generator.dtype_policy)
        self.generator = generator
        self.step = 0
        self.seconds = 0.0
        self.announced = {}
        self.interrupted = False
        self.total = keras.metrics.Mean("loss", dtype="float32")
        self.gradient_norm = keras.metrics.Mean("gradient_norm", dtype="float32")
        self.added = keras.metrics.Mean(ADDED, dtype="float32")
        self.adds_losses = False
        self._without_gradient = set()
        if not generator.built:
            generator.build(generator.input_shapes)
        self.built = True

    def call(self, features, training=False):
        return self.generator(features, training=training)

    def compile(self, optimizer, **arguments):
        super().compile(optimizer, **arguments)
        # A checkpoint needs the optimizer's slots to restore into.
        self.optimizer.build(self.generator.trainable_variables)
        shapes = self.generator.input_shapes.items()
        features = {name: tf.zeros((1, 32, *shape[2:])) for name, shape in shapes}
        with keras.StatelessScope(collect_losses=True) as scope:  # whether there is one more curve
            self.generator(features, training=True)
        self.adds_losses = bool(scope.losses or self.generator.losses)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means of the total, of every part, and of the gradients' norm."""
        added = [self.added] if self.adds_losses else []
        return [self.total, *self.loss.metrics, *added, self.gradient_norm]

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            function = self._train_function()

            def counted(iterator):
                logs = function(iterator)
                self.step += 1
                return logs

            self.train_function = counted

    def _train_function(self):
        return self._function(self.train_step)

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

    def evaluate(self, *arguments, **keywords):
        """As in Keras, of the averaged weights; nothing once the run is interrupted."""
        if self.interrupted:
            return {}
        with self.averaged_weights():
            return super().evaluate(*arguments, **keywords)

    def on_replicas(self, function, *arguments):
        """Runs `function` on every replica, with its part of the arguments."""
        return self.distribute_strategy.run(function, args=arguments)

    def keep(self, variables) -> list:
        """What variables are now, on every replica of this process, for `put_back_unless`."""
        replicas = self.distribute_strategy.experimental_local_results
        return [(one, one.value()) for v in variables for one in replicas(v.value)]

    @property
    def passed_through(self) -> list:
        """Variables that change before it is known whether a step will be made."""
        return self.generator.non_trainable_variables

    def finish(self, logs, kept) -> dict:
        """Ends a step: one that went wrong leaves no trace, any other is counted by the metrics.

        Args:
            logs: What the step computed, scalars by name.
            kept: What `passed_through` was before.

        Returns:
            The logs.
        """
        finite = self._finite(logs)
        put_back_unless(finite, kept)
        counted = {}  # with float16, the norm may be infinite by itself
        for name, value in logs.items():
            counts = tf.logical_and(finite, tf.math.is_finite(value))
            counted[name] = tf.where(counts, value, 0.0), tf.cast(counts, "float32")
        self.on_replicas(self._count, counted)
        return logs

    def _count(self, values):
        """Adds (value, weight), by name, to the metrics of these names."""
        for metric in self.metrics:
            if metric.name in values:
                # Parts of a loss take no `update_state`, which is Keras' call.
                keras.metrics.Mean.update_state(metric, *values[metric.name])

    def update(self, optimizer, variables, gradients, values, norm_name, allowed=True):
        """Steps an optimizer, if everything is finite.

        Args:
            optimizer: Built for `variables`.
            gradients: Of the loss that Keras has scaled for replicas and precision, per replica.
            values: What the step computed, scalars by name, per replica.
            norm_name: What the norm of the gradients is called in the logs.
            allowed: False, here or as a tensor, forbids it.

        Returns:
            The means of `values` over the replicas, with the norm; and whether the variables were
            stepped.
        """
        strategy = self.distribute_strategy
        pairs = self._with_gradient(gradients, variables)
        destinations = [(gradient, variable.value) for gradient, variable in pairs]
        gradients = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, destinations)
        # Scaling the loss scaled its gradients.
        scale = tf.cast(optimizer.scale_loss(tf.constant(1.0)), "float32")
        norm = tf.linalg.global_norm([tf.convert_to_tensor(g) for g in gradients]) / scale
        logs = self._means(values) | {norm_name: norm}

        def apply():
            optimizer.apply_gradients(
                [(gradient, v) for gradient, (_, v) in zip(gradients, pairs, strict=True)]
            )
            return tf.math.is_finite(norm)  # or the optimizer has lowered the scale of the loss

        stepped = tf.cond(
            tf.logical_and(allowed, self._finite(logs)), apply, lambda: tf.constant(False)
        )
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

    def announce(self, values) -> dict:
        """The values of a replica, with what its process announces."""
        return values | {name: variable.value() for name, variable in self.announced.items()}

    def _means(self, values):
        """The means over all replicas, in one reduction."""
        vector = self.on_replicas(lambda values: tf.stack([*values.values()]), values)
        reduced = self.distribute_strategy.reduce(tf.distribute.ReduceOp.MEAN, vector, axis=None)
        return dict(zip(values, tf.unstack(reduced, len(values)), strict=True))

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
        names = self.on_replicas(self._measure, data)
        return {m.name: m.result() for m in self.metrics if m.name in names}

    def _measure(self, data):
        features, waveform = data
        y_pred = self(features, training=False)
        added = self.generator.losses
        _, values = self._compute(self._measured(waveform), self._measured(y_pred), added)
        examples = tf.shape(waveform)[0]
        self._count({name: (value, examples) for name, value in values.items()})
        return values

    def _measured(self, waveform):
        """What the loss takes in validation."""
        return waveform

    def _compute(self, y_true, y_pred, added):
        """The total with all that belongs to it, and its values by name.

        Args:
            y_true, y_pred: What the loss takes.
            added: What layers add to the loss.

        Returns:
            The total, scaled as Keras scales losses for replicas, and what is to be logged.
        """
        total, values = self.loss.compute(y_true, y_pred)
        replicas = self.distribute_strategy.num_replicas_in_sync
        if added:
            values[ADDED] = sum(tf.reduce_sum(tf.cast(one, total.dtype)) for one in added)
            total = total + values[ADDED] / replicas
        return total, {"loss": total * replicas} | values

    def go_to(self, share: float) -> None:
        """Tells the schedules which share of the run is over, from 0 to 1."""
        for optimizer in self.optimizers:
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            if isinstance(optimizer, Trained):
                optimizer.go_to(share)

    @property
    def optimizers(self) -> list[keras.optimizers.Optimizer]:
        return [self.optimizer]

    @property
    def state(self) -> dict:
        """What a checkpoint of training holds, by name."""
        weights = set(map(id, self.generator.weights))
        seeds = [v for v in self.generator.variables if id(v) not in weights]
        state = {"model": self.generator, "optimizer": self.optimizer}
        # TensorFlow finds those of random layers nowhere.
        return state | ({"seeds": seeds} if seeds else {})

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
        kept = self.keep(self.passed_through)
        gradients, values = self.on_replicas(self._gradients, data)
        variables = self.generator.trainable_variables
        logs, _ = self.update(self.optimizer, variables, gradients, values, "gradient_norm")
        return self.finish(logs, kept)

    def _gradients(self, data):
        features, waveform = data
        with tf.GradientTape() as tape:
            y_pred = self(features, training=True)
            loss, values = self._compute(waveform, y_pred, self.generator.losses)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.generator.trainable_variables)
        return gradients, self.announce(values)


def put_back_unless(condition, kept) -> None:
    """Makes variables what they were when `Trainer.keep` was called, unless `condition` holds."""

    def put_back():
        for variable, value in kept:
            variable.assign(value)
        return True

    tf.cond(condition, lambda: False, put_back)
