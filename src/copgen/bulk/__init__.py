"""What is done to a whole archive? `patches` reads a cell, `encode` makes latents of cells, `generate` draws samples for them."""
