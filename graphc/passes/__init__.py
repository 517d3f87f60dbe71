"""Graph passes: from what the user declared to what is lowered."""
