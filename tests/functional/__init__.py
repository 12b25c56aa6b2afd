"""Tests of ``ddplug.functional``."""
