"""DMDNet: parts of the face re-written from a learned memory and from the person's own references."""
