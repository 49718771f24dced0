"""Tasks of EleutherAI's lm-evaluation-harness, scored on the live model. The library is imported when one is loaded."""
