"""The chat panel: conversations as plain data, one desk that answers, and what shows them."""
