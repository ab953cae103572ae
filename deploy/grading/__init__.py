"""Live scores, intervals and alerts of a service's forecasts: state, batches, records."""
