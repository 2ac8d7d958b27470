"""The base of the house: what is said, decided, kept and carried. Nothing here looks up to a service."""
