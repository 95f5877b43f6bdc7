"""Frozen values and pure decisions. Standard library only; time, randomness and ids are arguments."""
