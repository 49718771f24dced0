"""The one evaluation loop and its consumers."""
