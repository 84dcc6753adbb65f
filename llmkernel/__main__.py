"""`python -m llmkernel`."""

from llmkernel.cli import main

if __name__ == "__main__":
    main()
