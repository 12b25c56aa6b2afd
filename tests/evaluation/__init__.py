"""Tests of ``ddplug.evaluation``."""
