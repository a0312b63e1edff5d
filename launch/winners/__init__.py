"""A winner's folder: written, read, checked, written again."""
