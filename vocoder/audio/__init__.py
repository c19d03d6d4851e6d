"""From samples to mel spectrograms, and from files to samples."""

__all__ = ["MelSpectrogram"]


def __getattr__(name):
    # Imported when it is asked for: the processes that look through a corpus (`data.probe`) read
    # files, and would start ten times slower with Keras.
    if name == "MelSpectrogram":
        from vocoder.audio.mel import MelSpectrogram

        return MelSpectrogram
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
