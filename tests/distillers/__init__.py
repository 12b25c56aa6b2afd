"""Tests of ``ddplug.distillers``."""
