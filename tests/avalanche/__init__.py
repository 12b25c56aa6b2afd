"""Tests of the Avalanche adapter."""
