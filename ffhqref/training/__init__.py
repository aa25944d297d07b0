"""What every training shares, whatever it trains: the loop with its saved states, where it runs, averages, faces.

The library knows no Hydra. A batch for a step comes from a callable, and every random draw is keyed by (seed, step),
so that a resumed run is the unbroken one.
"""
