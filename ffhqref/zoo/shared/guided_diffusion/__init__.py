"""The guided-diffusion family: one U-Net, one noise schedule and one source of draws for DifFace, DR2 and PGDiff."""
