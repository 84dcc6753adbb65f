"""Settings and sampling parameters as command line options, for the CLI and the magics alike."""
