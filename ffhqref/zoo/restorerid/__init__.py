"""RestorerID: Stable Diffusion 1.5 steered by the LQ image's structure and a reference's identity."""
