"""Evolution, exact optima, objectives, evaluators and ranking statistics."""
