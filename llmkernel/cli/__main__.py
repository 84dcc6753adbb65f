"""`python -m llmkernel.cli`."""

from llmkernel.cli import main

main()
