"""From vectors to a map in two dimensions."""
