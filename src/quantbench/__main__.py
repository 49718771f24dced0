"""`python -m quantbench`."""

from quantbench.cli.main import main

if __name__ == "__main__":
    main()
