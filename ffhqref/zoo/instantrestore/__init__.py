"""InstantRestore: one step of SD-Turbo whose decoder attends to keys and values of the references."""
