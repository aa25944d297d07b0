"""ffhqref: build reference sets, degrade, restore, score and rank face restoration."""

__version__ = "0.1.0"
