"""Live scores, intervals and anomalies of many series at once: numpy only, event by event."""
