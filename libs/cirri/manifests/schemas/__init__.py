"""What each kind's manifest may hold, as tables."""
