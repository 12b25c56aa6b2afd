"""Benchmarks and what makes tables of their results."""
