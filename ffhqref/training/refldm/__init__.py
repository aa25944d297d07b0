"""Training of ReF-LDM, which its authors never published: VQGAN, LQ-only LDM, and the ReF-LDM fine-tune from it.

The library knows no files of images and no Hydra: a `TrainingBatch` for a step comes from a callable, and every
random draw is keyed by (seed, step), so that a resumed run is the unbroken one.
"""
