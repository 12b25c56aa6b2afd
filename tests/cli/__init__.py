"""Tests of ``ddplug.cli``."""
