"""Tests of ``ddplug.distillation``."""
