"""Migrations of keyservice's database, run as its owner role."""
