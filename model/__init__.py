"""Windows to forecasts: the protocol of shapes, the LSTM, training, export, registry. Imports nothing by itself."""
