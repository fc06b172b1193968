"""Migrations of coordinator's database, run as its owner role."""
