"""Files and topics as frames: tables, measurements, corpora, histories. The only importers of polars."""
