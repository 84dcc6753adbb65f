"""Attention over paged keys and values: the plain torch reference that faster kernels replace."""
