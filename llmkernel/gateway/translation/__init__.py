"""What the dialects share: from the fields of a request to a question for a worker, and back."""
