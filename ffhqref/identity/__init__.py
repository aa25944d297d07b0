"""From embeddings to pairs, identities, splits and references."""
