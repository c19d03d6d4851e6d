"""Spectral normalisation of convolutions (Miyato et al., arXiv:1802.05957).

`keras.layers.SpectralNormalization` writes the normalised kernel over the variable, so that the
gradient doesn't pass through the singular value and what was learnt is lost. Here, as in
`torch.nn.utils.spectral_norm`, the kernel is a function of an untouched variable.
"""

import keras
from keras import ops


class SpectralNorm:
    """Makes `kernel` the parent's own kernel divided by its largest singular value.

    To be mixed into one of Keras' convolutions, before it. The kernel counts as a matrix of (taps
    and channels in, channels out). The singular value is v' W u with the vectors `u` and `v`, which
    are variables but not trained: the gradient holds them fixed. A call with `training=True` first
    brings them closer to the singular vectors by one power iteration; any other call changes
    nothing.
    """

    def build(self, input_shape):
        super().build(input_shape)
        *_, channels = self._kernel.shape
        # Every replica of `tf.distribute` makes the same iteration.
        common = {"trainable": False, "autocast": False, "aggregation": "only_first_replica"}
        self.u = self.add_weight(name="u", shape=(channels,), initializer=_unit, **common)
        self.v = self.add_weight(
            name="v",
            shape=(self._matrix().shape[0],),
            initializer=lambda shape, dtype: _normalised(ops.matmul(self._matrix(), self.u)),
            **common,
        )

    def call(self, inputs, training=False):
        if training:
            self.iterate()
        return super().call(inputs)

    def iterate(self):
        """One power iteration of the singular vectors."""
        matrix = ops.stop_gradient(self._matrix())
        self.v.assign(_normalised(ops.matmul(matrix, self.u)))
        self.u.assign(_normalised(ops.matmul(self.v, matrix)))

    @property
    def kernel(self):
        sigma = ops.sum(self.v * ops.matmul(self._matrix(), self.u))
        return ops.cast(ops.cast(self._kernel, "float32") / sigma, self._kernel.dtype)

    def _matrix(self):
        kernel = ops.cast(self._kernel, "float32")
        return ops.reshape(kernel, (-1, kernel.shape[-1]))

    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)  # Keras' own would store `kernel`

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)


def _normalised(x):
    return x / ops.maximum(ops.norm(x), 1e-12)


def _unit(shape, dtype):
    return _normalised(keras.random.normal(shape, dtype=dtype))
