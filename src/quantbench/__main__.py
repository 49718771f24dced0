"""`python -m quantbench`."""

from quantbench.cli import main

if __name__ == "__main__":
    main()
