"""Tests of the NNI adapter."""
