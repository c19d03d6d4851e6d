"""From a corpus to batches of (mel, waveform)."""
