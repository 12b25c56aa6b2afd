"""Tests of ``ddplug.networks``."""
