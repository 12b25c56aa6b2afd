"""Tests of ``ddplug.data``."""
