"""OSDFace: one step of Stable Diffusion 2.1 with LoRA, prompted by codes of the LQ image."""
