"""What dies, and that nothing is lost by it."""
