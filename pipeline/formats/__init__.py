"""Codecs: the records of each kind of topic, from bytes to values and back. Imports nothing by itself."""
