"""The restorer `command`: any method through the user's own checkout of its code and its own interpreter."""
