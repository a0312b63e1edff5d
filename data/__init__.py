"""Readers of image folders, click logs and benchmark tables."""
