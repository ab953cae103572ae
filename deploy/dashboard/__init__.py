"""The page: forecasts, scores and health of a service, read from its topics alone."""
