"""Names of the provenance headers of the records that Tidecast produces."""

OURS = "tidecast."
"""The prefix of all our headers."""

MODEL, VERSION, PROVIDER = "tidecast.model", "tidecast.version", "tidecast.provider"
"""Of a forecast or label: the sha256 of the model's file, its label, and the onnxruntime provider that ran it."""
INPUT, OFFSETS = "tidecast.input", "tidecast.offsets"
"""Of a forecast or label: TOPIC/PARTITION of its input, and FIRST-LAST, the offsets that its window spans."""
REDRIVEN = "tidecast.redriven"
"""Of a redriven record: its dead letter, as TOPIC/PARTITION/OFFSET."""
