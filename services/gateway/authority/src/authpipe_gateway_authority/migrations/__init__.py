"""Migrations of authority's database, run as its owner role."""
