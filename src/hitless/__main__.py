"""``python -m hitless`` is the command ``hitless``."""

from hitless.cli import main

if __name__ == "__main__":
    main()
