"""What every head is."""

import keras


class Head(keras.layers.Layer):
    """(batch, frames, channels) -> (batch, frames * hop_length), always in float32.

    Half precision is too coarse for a phase, and for what is to be heard.

    A subclass has explicit constructor arguments, of plain data, which its `get_config` returns;
    its `name` is that in `registry.HEADS`.

    Attributes:
        channels: How many the body has to make.
        hop_length: Samples that are made of each frame of the body's.
    """

    channels: int
    hop_length: int

    def __init__(self, name):
        super().__init__(name=name, dtype="float32")

    @property
    def reach(self) -> int:
        """Frames on each side of a frame that its samples depend on."""
        return 0

    def get_config(self):
        return {"name": self.name}
