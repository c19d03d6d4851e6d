"""One loss made of weighted parts, each computed once and shown under its own name.

The idea is keras-team/keras#20986: the loss computes each part, hands its unweighted value to that
part's metric, and returns the weighted sum.

    multi = MultiLoss([LossCfg("mse", 1.0), LossCfg(MelLoss(), 45.0, "mel")])
    model.compile(optimizer, loss=multi, metrics=multi.metrics)

A training step of one's own needs no metrics to see the parts:

    total, parts = multi.compute(y_true, y_pred)

A part can take one output of several. Keras calls a loss with one after the other, unless it is one
of a list and the outputs are no list (or the other way round: a tuple):

    multi = MultiLoss([LossCfg("mse", of="low"), LossCfg("mae", 0.1, of="high")])
    model.compile(optimizer, loss=[multi], metrics={"low": multi.metrics})

There the name of any output will do. A part can itself be a MultiLoss:

    scores = MultiLoss([LossCfg("mse", of="low"), LossCfg("mse", of="high")])
    multi = MultiLoss([LossCfg(MelLoss(), 45.0, "mel", of="waveform"),
                       LossCfg(scores, 1.0, "scores", of="features")])
    multi({"waveform": w, "features": {"low": a, "high": b}}, {...})
"""

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops
from keras.src.losses.loss import unscale_loss_for_distribution


@dataclasses.dataclass
class LossCfg:
    """One part of a `MultiLoss`.

    Attributes:
        loss: A `keras.losses.Loss`, a Keras identifier such as "mse", a function of
            (y_true, y_pred), or a serialised loss (dict).
        weight: Factor in the total, 0 or more. With 0 the part is shown but not trained on.
        name: Its name in logs; None for the loss's own.
        of: Which entry of y_true and y_pred it takes, a key of mappings or an index of lists; None
            for all of it. Where y_pred has None as that entry, the part is left out.

    Raises:
        ValueError: The weight is negative or not a number.
    """

    loss: keras.losses.Loss | str | Callable | Mapping[str, Any]
    weight: float = 1.0
    name: str | None = None
    of: str | int | None = None

    def __post_init__(self):
        self.loss = _as_loss(self.loss)
        self.weight = float(self.weight)
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight: must be 0 or more, not {self.weight}")
        self.name = self.name or self.loss.name


@keras.saving.register_keras_serializable("vocoder")
class MeanParts(keras.metrics.Mean):
    """Running mean of one part's unweighted values, fed by its `MultiLoss` alone.

    `model.save` writes the loss and the metrics of `compile` one after the other. A saved metric
    holds its loss, which Keras knows to be that of `compile`, so that loading gives this one's
    metric, and none that nothing feeds.

    Args:
        name: The part's name.
        loss: The `MultiLoss`.
    """

    def __init__(self, name, loss):
        super().__init__(name=name.replace("/", "_"))  # a scope's name has no slash
        self.name = name
        self._loss = weakref.ref(loss)  # which holds this metric

    def update_state(self, *args, **kwargs):
        """Does nothing: this is Keras' own call, with y_true and y_pred."""

    def add(self, value, sample_weight=None):
        """Adds the part's value for a batch, weighted by the number of examples in it."""
        super().update_state(value, sample_weight)

    def get_config(self):
        loss = keras.saving.serialize_keras_object(self._loss())
        return {"name": self.name, "loss": loss}

    @classmethod
    def from_config(cls, config):
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return next(metric for metric in loss.metrics if metric.name == config["name"])


@keras.saving.register_keras_serializable("vocoder")
class MultiLoss(keras.losses.Loss):
    """Weighted sum of losses of one output, which may be a structure.

    A part that is a MultiLoss is shown with its own parts, as "part/inner part"; the weights of
    these count in its value. It is computed for the outermost MultiLoss, whose metrics alone are
    filled.

    Args:
        parts: `LossCfg` objects, or their serialised form (dicts).
        name: Name of the loss.

    Attributes:
        metrics: One `MeanParts` a part, those of nested ones after their own, for
            `compile(metrics=...)`.

    Raises:
        ValueError: No parts, or two of one name.
    """

    def __init__(self, parts: Sequence[LossCfg], name="multi_loss"):
        super().__init__(name=name)
        self.parts = [p if isinstance(p, LossCfg) else LossCfg(**p) for p in parts]
        if not self.parts:
            raise ValueError("parts: a MultiLoss needs at least one")
        names = self._names()
        for name in names:
            if names.count(name) > 1 or name == "loss":
                raise ValueError(f"name: {name!r} is taken; give each LossCfg a name of its own")
        self.metrics = [MeanParts(name, self) for name in names]

    def _names(self):
        names = []
        for part in self.parts:
            inner = part.loss._names() if isinstance(part.loss, MultiLoss) else []
            names += [part.name, *(f"{part.name}/{name}" for name in inner)]
        return names

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The total of `compute`, whose parts go to `metrics`: what Keras calls."""
        total, parts = self.compute(y_true, y_pred, sample_weight)
        there = [y for y in keras.tree.flatten(y_pred) if y is not None]
        examples = ops.shape(there[0])[0]
        for metric in self.metrics:
            if metric.name in parts:
                metric.add(parts[metric.name], examples)
        return total

    def compute(self, y_true, y_pred, sample_weight=None):
        """The weighted sum and what it is made of.

        Args:
            y_true, y_pred: What the parts take: (batch, samples) for the waveform losses of this
                package, or mappings or lists of which each part takes its `of`.
            sample_weight: As in Keras, (batch,) or what the parts broadcast.

        Returns:
            The total, a scalar, scaled as Keras scales losses: on several replicas it is this
            one's share of their mean. And the unweighted values of the parts, by the metrics'
            names, not scaled.

        Raises:
            ValueError: An entry that a part takes isn't there.
        """
        total, values = 0.0, {}
        for part in self.parts:
            pred = _entry(part, y_pred, "y_pred")
            if pred is None:
                continue
            true = _entry(part, y_true, "y_true")
            if not part.weight:
                # It takes no backward pass, and its NaN doesn't reach the total.
                pred = keras.tree.map_structure(ops.stop_gradient, pred)
            inner = {}
            if isinstance(part.loss, MultiLoss):
                value, inner = part.loss.compute(true, pred, sample_weight)
            else:
                value = part.loss(true, pred, sample_weight)
            values[part.name] = unscale_loss_for_distribution(value)
            values |= {f"{part.name}/{name}": of_part for name, of_part in inner.items()}
            if part.weight:
                total = total + part.weight * value
        return ops.convert_to_tensor(total, dtype=self.dtype), values

    def get_config(self):
        return {
            "parts": [
                {
                    "loss": keras.losses.serialize(part.loss),
                    "weight": part.weight,
                    "name": part.name,
                    "of": part.of,
                }
                for part in self.parts
            ],
            "name": self.name,
        }


def _entry(part, y, name):
    """What a part takes of `y`, which is y_true or y_pred."""
    if part.of is None:
        return y
    if not isinstance(y, Mapping | list | tuple):
        raise ValueError(
            f"{part.name}: takes of={part.of!r}, but {name} is a single tensor: Keras calls a loss "
            "with one output after the other. With a dict of several outputs "
            'compile(loss=[multi], metrics={"OUTPUT": multi.metrics}) calls it with all of them, '
            "with a list of them loss=(multi,) does; a model of one output needs no `of`; any "
            "other can call multi(y, y_pred) in its compute_loss"
        )
    entries = list(y) if isinstance(y, Mapping) else list(range(len(y)))
    if part.of not in entries:
        raise ValueError(f"{part.name}: takes of={part.of!r}, but {name} has {entries} alone")
    return y[part.of]


@keras.saving.register_keras_serializable("vocoder")
class FunctionLoss(keras.losses.Loss):
    """A function of (y_true, y_pred) as a `Loss`: the mean of its values.

    Args:
        function: Returns a value an example, or several.
        name: Its name; the function's by default.
    """

    def __init__(self, function, name=None, reduction="sum_over_batch_size"):
        if isinstance(function, Mapping | str):
            function = keras.saving.deserialize_keras_object(function)
        super().__init__(name=name or function.__name__, reduction=reduction)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)

    def get_config(self):
        function = keras.saving.serialize_keras_object(self.function)
        return super().get_config() | {"function": function}


def _as_loss(loss) -> keras.losses.Loss:
    if isinstance(loss, Mapping):
        loss = keras.losses.deserialize(loss)
    elif isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.losses.Loss):
        return loss
    if callable(loss):
        return FunctionLoss(loss)
    raise ValueError(f"loss: {loss!r} is no loss, function, identifier or serialised loss")
