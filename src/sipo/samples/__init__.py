"""Folders of generated media: written for training and for evaluation, read by everything that scores or judges."""
