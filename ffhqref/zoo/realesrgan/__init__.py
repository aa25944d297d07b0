"""Real-ESRGAN."""
