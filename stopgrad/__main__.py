"""`python -m stopgrad` is the command."""

from stopgrad.cli import main

if __name__ == "__main__":
    main()
