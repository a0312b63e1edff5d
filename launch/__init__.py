"""Entry points: each file is a script, and composes the other five folders."""
