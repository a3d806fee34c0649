"""What a caller sends: its key, and bodies of every kind."""
