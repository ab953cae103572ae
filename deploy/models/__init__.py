"""What a service does with model files: loads them, predicts with them, follows a registry for new ones."""
