"""What is in a folder of latents? `look` counts, `check` verifies, `show` decodes; `lmdb` brings in those of the published pipeline."""
