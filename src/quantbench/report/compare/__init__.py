"""What `quantbench compare` shows: recipes side by side, tests against one of them, and two runs explained."""
