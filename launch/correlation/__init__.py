"""What launch/correlate.py does: for a run (run.py and what it takes), and for a benchmark (benchmark_*.py)."""
