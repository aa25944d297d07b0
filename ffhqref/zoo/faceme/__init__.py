"""FaceMe: SDXL with a ControlNet for the LQ picture, and identity tokens of the references in the prompt."""
