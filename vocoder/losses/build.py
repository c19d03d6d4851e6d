"""From the `loss` node of a config to a `MultiLoss`."""

from collections.abc import Mapping

from keras import ops

from vocoder import registry
from vocoder.errors import InputError
from vocoder.losses.multi import LossCfg, MultiLoss


def build_multi_loss(node: Mapping, sample_rate: int, segment_length: int) -> MultiLoss:
    """Builds the parts of `{terms: {NAME: {loss: LOSS, weight: W, argument: value, ...}, ...}}`.

    Args:
        node: The `loss` node; every term is one part, under its own name.
        sample_rate: Hz, for the losses that need it and don't say their own.
        segment_length: Samples of a training segment, on which every part is tried.

    Raises:
        InputError: Names the key.
    """
    for key in node:
        registry.known(key, ("terms",), f"loss.{key}")
    terms = node.get("terms") or {}
    parts = []
    for name, term in terms.items():
        key = f"loss.terms.{name}"
        if not isinstance(term, Mapping):
            raise InputError(f"{key}: must be a mapping such as {{loss: mel, weight: 1}}")
        term = dict(term)
        weight = term.pop("weight", 1.0)
        provided = {"sample_rate": sample_rate, "name": name}
        loss = registry.build(registry.LOSSES, term, key, name_key="loss", provided=provided)
        try:
            loss(ops.zeros((1, segment_length)), ops.zeros((1, segment_length)))
        except Exception as error:  # each backend has its own for a window that is too long
            raise InputError(
                f"{key}: can't be computed on data.segment_length={segment_length} samples; "
                "shorter windows or a longer segment would do"
            ) from error
        try:
            parts.append(LossCfg(loss, weight, name))
        except (TypeError, ValueError) as error:
            reason = str(error).removeprefix("weight: ")
            raise InputError(f"{key}.weight: {reason}") from error
    if not parts:
        raise InputError(
            "loss.terms: there are none; +loss.terms.mel={loss: mel, weight: 1} adds one"
        )
    if not any(part.weight for part in parts):
        raise InputError("loss.terms: every weight is 0, so there is nothing to train on")
    try:
        return MultiLoss(parts)
    except ValueError as error:
        raise InputError(f"loss.terms: {error}") from error
