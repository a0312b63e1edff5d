"""CTR runs: what the stages of launch/domain.py do for clicks."""
