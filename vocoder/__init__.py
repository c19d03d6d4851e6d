"""Neural vocoders in Keras 3: training, synthesis and what they are made of.

`vocoder.load(MODEL)` gives a trained vocoder; everything else lives in the rooms of the package.
"""

__version__ = "0.1.0"


def load(model):
    """Loads a trained vocoder: see `vocoder.synthesize.Vocoder.load`."""
    from vocoder.synthesize import Vocoder  # Keras is imported only when something is loaded

    return Vocoder.load(model)
