"""What stored runs would cost on a machine: a roofline of their bits, without weights and without that machine."""
