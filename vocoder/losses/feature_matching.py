"""Distance of what a discriminator sees in a recording and in what is synthesised."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("vocoder")
class FeatureMatchingLoss(keras.losses.Loss):
    """Mean absolute difference of each feature map, summed over the maps; one value an example.

    As in HiFi-GAN (github.com/jik876/hifi-gan), whose factor of 2 is left to the term's weight.
    Called with the maps of one sub-discriminator, `[feature map, ..., score]`. The recording's
    maps get no gradient.

    Args:
        relative: Divides each map's difference by the mean size of the recording's map, as in
            EnCodec (arXiv:2210.13438), so that the loss does not depend on the maps' scale. Where
            that is below a tenth of the other's, as at silence, by this tenth: 11 at most.
        score: Whether the score is one of the maps, as in HiFi-GAN; DAC leaves it out.
    """

    of_features = True

    def __init__(
        self,
        relative=False,
        score=True,
        name="feature_matching",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.relative = relative
        self.score = score

    def call(self, y_true, y_pred):
        total = 0.0
        count = len(y_pred) if self.score else len(y_pred) - 1
        for true, pred in zip(y_true[:count], y_pred[:count], strict=True):
            true = ops.stop_gradient(true)
            axes = tuple(range(1, len(pred.shape)))
            distance = ops.mean(ops.abs(true - pred), axis=axes)
            if self.relative:
                size, other = (ops.mean(ops.abs(x), axis=axes) for x in (true, pred))
                least = ops.maximum(0.1 * ops.stop_gradient(other), 1e-5)
                distance = distance / ops.maximum(size, least)
            total = total + distance
        return total

    def get_config(self):
        return super().get_config() | {"relative": self.relative, "score": self.score}
