"""Headers by which a record of ours tells where it comes from. Kafka has them as text and bytes."""

OURS = "tidecast."
"""What the names of all our headers begin with."""

MODEL, VERSION, PROVIDER = "tidecast.model", "tidecast.version", "tidecast.provider"
"""Of a forecast or label: the sha256 of the model's file, its label, and the onnxruntime provider that ran it."""
INPUT, OFFSETS = "tidecast.input", "tidecast.offsets"
"""Of a forecast or label: TOPIC/PARTITION of its input, and FIRST-LAST, the offsets between which its window lies."""
REDRIVEN = "tidecast.redriven"
"""Of a record sent again: which dead letter it was, as TOPIC/PARTITION/OFFSET."""
