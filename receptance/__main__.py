"""`python -m receptance`: the same as the command `receptance`."""

from .cli import main

if __name__ == "__main__":
    main()
