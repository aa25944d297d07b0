"""DR2 and an enhancer, by default its own; `restorer.DR2` is what the registry names ``dr2``."""
