"""Convolutions with weight normalisation (Salimans and Kingma, arXiv:1602.07868).

Keras has no such layer. The kernel is `g * v / ||v||`, with the norm over all axes but the last:
the output channels of a convolution and the input channels of a transposed one, as
`torch.nn.utils.weight_norm` with its default `dim=0` counts them.
"""

import keras
import numpy as np
from keras import ops


def normalise(v, g):
    """`g * v / ||v||`: (..., channels) and (channels,) -> (..., channels)."""
    norm = _norm(ops.cast(v, "float32"))
    return v * ops.cast(ops.cast(g, "float32") / norm, v.dtype)


def _norm(v):
    return ops.sqrt(ops.sum(ops.square(v), axis=tuple(range(len(v.shape) - 1))))


def default_kernel():
    """PyTorch's initial convolution kernels: uniform in +-1 / sqrt(fan_in)."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


class WeightNorm:
    """Makes `kernel` a function of the variables `v` and `g`; `v` is what the parent creates.

    To be mixed into one of Keras' convolutions, before it.
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.g = self.add_weight(
            name="g",
            shape=(self.v.shape[-1],),
            # The kernel starts as v, at v's own norm.
            initializer=lambda shape, dtype: _norm(self.v),
        )

    @property
    def v(self):
        return self._kernel

    @property
    def kernel(self):
        return normalise(self.v, self.g)

    def save_own_variables(self, store):
        keras.layers.Layer.save_own_variables(self, store)  # Keras' own would store `kernel`

    def load_own_variables(self, store):
        keras.layers.Layer.load_own_variables(self, store)


@keras.saving.register_keras_serializable("vocoder")
class WeightNormConv1D(WeightNorm, keras.layers.Conv1D):
    """`keras.layers.Conv1D` with weight normalisation."""


@keras.saving.register_keras_serializable("vocoder")
class WeightNormConv1DTranspose(WeightNorm, keras.layers.Conv1DTranspose):
    """`keras.layers.Conv1DTranspose` with weight normalisation."""

    @WeightNorm.kernel.setter
    def kernel(self, variable):
        self._kernel = variable


def conv1d(filters, kernel_size, *, weight_norm, **arguments):
    """A "same"-padded 1-D convolution, with or without weight normalisation."""
    cls = WeightNormConv1D if weight_norm else keras.layers.Conv1D
    arguments.setdefault("kernel_initializer", default_kernel())
    return cls(filters, kernel_size, padding="same", **arguments)


def conv1d_transpose(filters, kernel_size, strides, *, weight_norm, **arguments):
    """A transposed convolution that multiplies the length by `strides`.

    Where it can't cut as many samples off the one end as off the other, since `kernel_size` and
    `strides` differ by an odd number, it cuts none: `padding` is "valid".
    """
    cls = WeightNormConv1DTranspose if weight_norm else keras.layers.Conv1DTranspose
    return cls(
        filters,
        kernel_size,
        strides,
        padding="valid" if (kernel_size - strides) % 2 else "same",
        kernel_initializer=default_kernel(),
        **arguments,
    )


def fold_weights(source, target):
    """Copies the weights of a model into its twin that has no weight normalisation.

    Args:
        source, target: Two built models that differ in weight normalisation alone.
    """
    for layer, twin in zip(source._flatten_layers(), target._flatten_layers(), strict=True):
        if isinstance(layer, WeightNorm):
            bias = [layer.bias] if layer.use_bias else []
            twin.set_weights([ops.convert_to_numpy(w) for w in [layer.kernel, *bias]])
        else:  # the layer's own variables; those of its sublayers come in their turn
            for variable, copy in zip(_own(layer), _own(twin), strict=True):
                copy.assign(variable)


def adopt_weights(source, target):
    """Copies the weights of a model, folded or not, into another of the same layers.

    Args:
        source, target: Two built models; `target` may have weight normalisation where `source` has
            plain kernels, which then become both direction and length.

    Raises:
        ValueError: A layer or a shape differs.
    """
    layers, others = list(source._flatten_layers()), list(target._flatten_layers())
    if len(layers) != len(others):
        raise ValueError(f"has {len(layers)} layers, and not the {len(others)} of this config")
    for layer, twin in zip(layers, others, strict=True):
        values = [ops.convert_to_numpy(v) for v in _own(layer)]
        if isinstance(twin, WeightNorm) and not isinstance(layer, WeightNorm) and values:
            kernel, *bias = values
            axes = tuple(range(kernel.ndim - 1))
            values = [kernel, *bias, np.sqrt(np.sum(kernel.astype(np.float64) ** 2, axis=axes))]
        shapes = [tuple(value.shape) for value in values]
        expected = [tuple(variable.shape) for variable in _own(twin)]
        if shapes != expected:
            raise ValueError(
                f"{layer.path} has weights of shapes {shapes}, not {expected} as in this config"
            )
        for variable, value in zip(_own(twin), values, strict=True):
            variable.assign(value)


def _own(layer):
    """The variables of a layer without those of its sublayers."""
    return layer._trainable_variables + layer._non_trainable_variables
