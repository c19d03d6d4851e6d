"""Distances between waveforms, sample by sample."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("vocoder")
class WaveformL1Loss(keras.losses.Loss):
    """Mean absolute difference of the samples, one value an example.

    Called with two waveforms (batch, samples).
    """

    def __init__(self, name="waveform_l1", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)
