"""Calls to other systems: written in a kill's own transaction, sent until they are answered."""
