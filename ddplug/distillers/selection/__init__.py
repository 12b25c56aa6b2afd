"""Methods that choose or average real samples, and their common base."""

__all__: list[str] = []
