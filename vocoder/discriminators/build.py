"""From the `discriminator` node of a config to `Discriminators`."""

from collections.abc import Mapping

from vocoder import registry
from vocoder.discriminators.base import Discriminators
from vocoder.errors import InputError


def build_discriminators(node: Mapping, dtype: str | None = None) -> Discriminators | None:
    """Builds `{parts: {PREFIX: {name: DISCRIMINATOR, argument: value, ...}, ...}}`.

    Args:
        node: The `discriminator` node. PREFIX begins the names of the part's sub-discriminators.
        dtype: A policy such as "mixed_bfloat16".

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
        discriminators = Discriminators(parts, dtype=dtype)
    except ValueError as error:
        raise InputError(f"discriminator.{error}") from error
    discriminators.build()
    return discriminators
