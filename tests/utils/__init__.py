"""Tests of ``ddplug.utils``."""
