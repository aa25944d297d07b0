"""Restorers made of other restorers: one after the other, colours put right, the best of several seeds, tiles."""
