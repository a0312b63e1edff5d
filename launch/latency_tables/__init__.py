"""Tables of single operations' latencies: measured, judged, read."""
