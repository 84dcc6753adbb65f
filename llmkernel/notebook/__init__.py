"""The front end in a notebook: `%llm`, `%%generate`, and how an answer is shown.

Nothing here imports torch, and nothing is imported before `%load_ext llmkernel`.
"""
