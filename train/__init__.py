"""Warm-up, retraining, evaluation, run folders and everything distributed."""
