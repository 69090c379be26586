"""What a head does: where it looks, when it is active, what it writes."""
