"""Hydra entry points, thin: read the config, call the library, write the table."""
