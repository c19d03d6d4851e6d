"""Several discriminators as one, and how the `discriminator` node of a config makes them."""

from collections.abc import Mapping

import keras
from keras import ops

from vocoder import registry
from vocoder.discriminators.base import MOST_PARTS, Discriminator
from vocoder.errors import InputError
from vocoder.kinds import check_list

LONGEST = 2**20  # samples of a segment


@keras.saving.register_keras_serializable("vocoder")
class CombinedDiscriminator(Discriminator):
    """Several discriminators as one: it has all their sub-discriminators.

    Args:
        parts: `Discriminator` objects, or their serialised form (dicts).
        name, dtype: As in every Keras model; the parts keep their own dtype.

    Raises:
        ValueError: "parts: reason".
    """

    def __init__(self, parts, name="discriminators", dtype=None):
        super().__init__(name, dtype)
        check_list("parts", parts, MOST_PARTS)
        self.parts = [
            keras.saving.deserialize_keras_object(part) if isinstance(part, dict) else part
            for part in parts
        ]
        if not all(isinstance(part, Discriminator) for part in self.parts):
            raise ValueError("parts: must be discriminators")
        self.sub_discriminators = [name for part in self.parts for name in part.sub_discriminators]
        for name in self.sub_discriminators:
            if self.sub_discriminators.count(name) > 1:
                raise ValueError(f"parts: {name} is there twice; give the parts different names")

    def build(self, input_shape=None):
        for part in self.parts:
            if not part.built:
                part.build(input_shape)
        self.built = True

    def call(self, waveform, training=False):
        maps = {}
        for part in self.parts:
            maps |= part(waveform, training=training)
        return maps

    def get_config(self):
        parts = [keras.saving.serialize_keras_object(part) for part in self.parts]
        return super().get_config() | {"parts": parts}


def build_discriminators(
    node: Mapping, dtype: str | None = None, segment_length: int | None = None
) -> CombinedDiscriminator | None:
    """Builds `{parts: {PREFIX: {name: DISCRIMINATOR, argument: value, ...}, ...}}`.

    Args:
        node: The `discriminator` node. PREFIX begins the names of the part's sub-discriminators.
        dtype: A policy such as "mixed_bfloat16".
        segment_length: Samples of a training segment, on which every part is tried.

    Returns:
        Built discriminators; None if there are no parts.

    Raises:
        InputError: Names the key.
    """
    for key in node:
        registry.known(key, ("parts",), f"discriminator.{key}")
    nodes = node.get("parts") or {}
    if not isinstance(nodes, Mapping):
        raise InputError(f"discriminator.parts: must be a mapping of names, not {nodes!r}")
    parts = []
    for name, part in nodes.items():
        key = f"discriminator.parts.{name}"
        if not isinstance(part, Mapping):
            raise InputError(f"{key}: must be a mapping such as {{name: multi_period}}")
        provided = {"name": name, "dtype": dtype}
        parts.append(registry.build(registry.DISCRIMINATORS, part, key, provided=provided))
    if not parts:
        return None
    try:
        discriminators = CombinedDiscriminator(parts, dtype=dtype)
    except ValueError as error:
        raise InputError(f"discriminator.{error}") from error
    discriminators.build()
    if segment_length:
        for part in parts:
            _try(part, segment_length)
    return discriminators


def _try(part, segment_length):
    try:
        part(ops.zeros((1, segment_length)))
    except Exception as error:  # each backend has its own for a window that is too long
        longer = 2 * segment_length
        while longer <= LONGEST and not _takes(part, longer):
            longer *= 2
        hint = f"data.segment_length={longer}" if longer <= LONGEST else "no longer one either"
        raise InputError(
            f"data.segment_length: {segment_length} samples are too short for "
            f"discriminator.parts.{part.name}; {hint} would do"
        ) from error


def _takes(part, length):
    try:
        part(ops.zeros((1, length)))
    except Exception:
        return False
    return True
