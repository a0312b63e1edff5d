"""The pages that launch/report.py writes: their sections, pictures and sentences."""
