"""Runs on images with a supernet: what the stages of launch/domain.py do for them."""
