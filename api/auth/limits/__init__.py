"""Limits: how many requests a sender may make."""
