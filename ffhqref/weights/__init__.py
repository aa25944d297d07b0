"""Weight files: where they come from, where they are, and whether they can be trusted."""
