"""CodeFormer: `network` builds it from spandrel-extra-arches' blocks, `restorer` runs it as the published script."""
