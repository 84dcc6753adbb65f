"""Text Generation Inference's own API: its routes, shapes, limits, errors and headers."""
