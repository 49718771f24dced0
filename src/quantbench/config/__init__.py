"""From a command line to checked cells: the one place that knows Hydra."""
