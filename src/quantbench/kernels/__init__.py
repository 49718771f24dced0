"""Inner loops of roundings, compiled for the processor. The torch code that each stands for tells what it computes."""
