"""What every room uses: errors, hashes, seeds, images, registries, progress."""
