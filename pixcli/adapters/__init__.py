"""Files in, the core in between, files out: written whole or not at all."""
