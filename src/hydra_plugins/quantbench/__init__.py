"""Found by Hydra: the launcher that runs quantbench's grids."""
