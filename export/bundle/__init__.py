"""Folders that inference servers load as they are."""
