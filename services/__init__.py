"""The columns of the house. Services never import each other; they meet on the bus."""
