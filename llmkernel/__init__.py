"""llmkernel."""
