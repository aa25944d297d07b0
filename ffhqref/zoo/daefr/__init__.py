"""DAEFR: `network` puts it together from the blocks of RestoreFormer and CodeFormer."""
