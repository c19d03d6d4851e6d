"""`python scripts/synthesize.py MODEL INPUT... --out DIR`: see vocoder/synthesize.py."""

from vocoder.synthesize import main

if __name__ == "__main__":
    main()
