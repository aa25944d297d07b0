"""Tables and the workspace that holds them."""
