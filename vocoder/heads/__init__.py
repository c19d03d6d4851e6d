"""What ends a generator: a layer that makes samples of what its body makes of frames."""

from collections.abc import Mapping

from vocoder import registry
from vocoder.heads.base import Head
from vocoder.heads.griffin_lim import GriffinLim
from vocoder.heads.istft import ISTFT
from vocoder.heads.spectral import SpectralHead
from vocoder.heads.waveform import Waveform
from vocoder.heads.wavenext import WaveNeXt

__all__ = ["ISTFT", "GriffinLim", "Head", "SpectralHead", "WaveNeXt", "Waveform", "build_head"]


def build_head(node: Mapping, prior: str | None = None) -> Head:
    """The head that `{name: HEAD, argument: value, ...}` describes.

    Args:
        node: Plain data.
        prior: The generator's, which may not be for the head that would do.

    Raises:
        ValueError: "head.argument: reason".
    """
    if not isinstance(node, Mapping):
        raise ValueError(f"head: must be a mapping such as {{name: istft}}, not {node!r}")
    try:
        return registry.build(registry.HEADS, node, "head")
    except ValueError as error:
        besides = " with prior=null would do" if prior else " would do"
        raise ValueError(str(error).replace(" would do", besides)) from error
