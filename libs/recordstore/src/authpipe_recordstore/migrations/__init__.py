"""Migrations of a store's database, run as its owner role."""
