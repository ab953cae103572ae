"""Bytes to values and back: what stands in the records of each topic. Imports nothing by itself."""
