"""VQFR, versions 1 and 2: a codebook decoder for texture, warped onto the LQ image by deformable convolutions."""
