"""From full precision to a quantized model, block by block."""
