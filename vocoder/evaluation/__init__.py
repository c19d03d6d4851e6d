"""How good a vocoder is: metrics, references to compare with, statistics and their report."""
