"""The composition: configuration, training jobs, the consumer service, the command line. Imports nothing by itself."""
