"""The worker: one process, one model, one device. Everything that imports torch is in here."""
