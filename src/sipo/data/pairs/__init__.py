"""Pairs as rows: schemas, manifests, tables, the check of all of them, and the split into training and validation."""
