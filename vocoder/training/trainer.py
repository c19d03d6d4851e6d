"""The model that `fit` runs: a generator, and how its weights are stepped."""

import contextlib

import keras
import numpy as np
import tensorflow as tf


class ReconstructionTrainer(keras.Model):
    """Trains a generator on the distance between what it makes and the recording.

    Batches are (mel, waveform): (batch, frames, n_mels) and (batch, samples). Beside the loss and
    its parts, the norm of the gradients before clipping is a metric, `gradient_norm`. A step at
    which one of these is NaN or infinite leaves weights and optimizer as they were.

    Args:
        generator: A `vocoder.generators.Generator`.
    """

    def __init__(self, generator):
        # Compiling looks at this model's policy to see whether the loss is to be scaled.
        super().__init__(name="trainer", dtype=generator.dtype_policy)
        self.generator = generator
        self.step_values = None  # of the last step: see `nonfinite`
        self.gradient_norm = keras.metrics.Mean("gradient_norm", dtype="float32")
        if not generator.built:
            generator.build((None, None, generator.n_mels))
        self.built = True

    def call(self, mel, training=False):
        return self.generator(mel, training=training)

    def train_step(self, data):
        mel, waveform = data
        with tf.GradientTape() as tape:
            y_pred = self(mel, training=True)
            loss = self.compute_loss(mel, waveform, y_pred, training=True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        # Scaling the loss scaled its gradients.
        scale = tf.cast(self.optimizer.scale_loss(tf.constant(1.0)), "float32")
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(norm)
        self.gradient_norm.update_state(tf.where(finite, norm, 0.0), tf.cast(finite, "float32"))
        self._apply_if_finite(gradients, loss, norm)
        return self._logs(mel, waveform, y_pred, loss)

    def _apply_if_finite(self, gradients, loss, norm):
        names = ["loss", "gradient_norm", *self.loss.values]
        values = tf.stack([loss, norm, *self.loss.values.values()])
        if self.step_values is None:
            with tf.init_scope():
                self._value_names = names
                self.step_values = tf.Variable(tf.zeros(len(names)), trainable=False)
        self.step_values.assign(values)
        judged = tf.concat([values[:1], values[2:]], 0) if self._scales_loss else values

        def apply():
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return True

        tf.cond(tf.reduce_all(tf.math.is_finite(judged)), apply, lambda: False)

    @property
    def mean_variables(self) -> list[keras.Variable]:
        """The state of all metrics, in a fixed order.

        `metrics_variables` lacks those of the parts until Keras has built its list of metrics.
        """
        metrics = {metric.name: metric for metric in (*self.metrics, *self.loss.metrics)}
        return [variable for name in sorted(metrics) for variable in metrics[name].variables]

    @property
    def nonfinite(self) -> list[str]:
        """What was NaN or infinite at the last step, so that it was skipped."""
        values = self.step_values.numpy()
        return [
            name
            for name, value in zip(self._value_names, values, strict=True)
            if not (np.isfinite(value) or (self._scales_loss and name == "gradient_norm"))
        ]

    @property
    def _scales_loss(self):
        # With float16, infinite gradients are a matter of the loss scale, which then is halved.
        return self.optimizer.loss_scale_factor is not None

    def test_step(self, data):
        mel, waveform = data
        y_pred = self(mel, training=False)
        loss = self.compute_loss(mel, waveform, y_pred, training=False)
        logs = self._logs(mel, waveform, y_pred, loss)
        logs.pop("gradient_norm")
        return logs

    def _logs(self, mel, waveform, y_pred, loss):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        for metric in self.metrics:
            if metric.name == "loss":  # Keras' own tracker of the total
                metric.update_state(loss * replicas, sample_weight=tf.shape(mel)[0])
        return self.compute_metrics(mel, waveform, y_pred)

    @contextlib.contextmanager
    def averaged_weights(self):
        """Puts the weights' moving averages in their place, if the optimizer keeps any."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if not (optimizer.use_ema and optimizer.built):
            yield
            return
        # `keras.callbacks.SwapEMAWeights` swaps by adding and subtracting, which loses bits.
        trained = [variable.numpy() for variable in self.trainable_variables]
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(self.trainable_variables, averages, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(self.trainable_variables, trained, strict=True):
                variable.assign(value)
