"""GPEN: a StyleGAN2 generator whose noise inputs are the feature maps of an encoder."""
