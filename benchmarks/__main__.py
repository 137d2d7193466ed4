"""`python -m benchmarks` is `python -m benchmarks.race`."""

from .race.__main__ import main

if __name__ == "__main__":
    main()
