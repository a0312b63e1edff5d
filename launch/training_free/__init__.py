"""Runs without a supernet: what the stages of launch/domain.py do for them."""
