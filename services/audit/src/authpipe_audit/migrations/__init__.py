"""Migrations of audit's database, run as its owner role."""
