"""FaceMe: SDXL with a ControlNet for the LQ image, and identity tokens of the references in the prompt."""
