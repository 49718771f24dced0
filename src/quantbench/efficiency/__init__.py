"""What an exported model costs where it runs: bytes, memory and rates, measured in an engine."""
