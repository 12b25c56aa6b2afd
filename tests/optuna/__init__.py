"""Tests of the Optuna adapter."""
