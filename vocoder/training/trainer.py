"""The model that `fit` runs: a generator, and how its weights are stepped."""

import contextlib

import keras
import tensorflow as tf


class ReconstructionTrainer(keras.Model):
    """Trains a generator on the distance between what it makes and the recording.

    Batches are (mel, waveform): (batch, frames, n_mels) and (batch, samples). Beside the loss and
    its parts, the norm of the gradients before clipping is a metric, `gradient_norm`.

    Args:
        generator: A `vocoder.generators.Generator`.
    """

    def __init__(self, generator):
        # Compiling looks at this model's policy to see whether the loss is to be scaled.
        super().__init__(name="trainer", dtype=generator.dtype_policy)
        self.generator = generator
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
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        # Scaling the loss scaled its gradients; tiny losses are no reason to divide by 0.
        scale = tf.cast(self.optimizer.scale_loss(tf.constant(1.0)), "float32")
        self.gradient_norm.update_state(tf.linalg.global_norm(gradients) / scale)
        return self._logs(mel, waveform, y_pred, loss)

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
