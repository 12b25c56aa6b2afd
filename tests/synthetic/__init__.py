"""Tests of ``ddplug.synthetic``."""
