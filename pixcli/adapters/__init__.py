"""Files in, core functions, files out: whole or not at all."""
