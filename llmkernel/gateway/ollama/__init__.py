"""Ollama's API: chat and generate, the models there are, fetching one."""
