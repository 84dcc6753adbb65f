"""Everything the embedded model is taught, generated from a seed. Apache-2.0 like the project."""
