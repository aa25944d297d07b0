"""ASFFNet512: `choice` picks a reference, `warp` brings it onto the LQ image, `network` joins both."""
