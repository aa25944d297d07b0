"""The zoo: the protocol, the registry, and one module or folder for each restorer."""
