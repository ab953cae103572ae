"""Training jobs: from a topic or a file to a registered model."""
