"""Weights as the engine wants them, kept on disk for the next start of the same model."""
