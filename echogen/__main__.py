"""`python -m echogen` is `echogen`."""

from echogen.cli import main

if __name__ == "__main__":
    main()
