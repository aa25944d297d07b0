"""PGDiff, partial guidance of a diffusion chain; `restorer.PGDiff` is what the registry names ``pgdiff``."""
