"""`python -m vocoder.convert`."""

from vocoder.convert import main

main()
