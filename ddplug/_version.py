"""The version, in a module of its own so that whatever needs it need not import the package's face."""

__all__ = ["__version__"]

__version__ = "0.1.0"
