"""What knows nothing of distillation: files, devices, randomness, options, text."""

__all__: list[str] = []
