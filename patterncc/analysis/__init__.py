"""What a pattern does, known before a GPU is touched: proofs, forecasts, differences and pictures."""
