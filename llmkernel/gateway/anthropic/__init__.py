"""Anthropic's API: messages, and counting the tokens of them."""
