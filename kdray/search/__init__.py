"""Many students become the winner."""
