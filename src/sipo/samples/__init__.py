"""Folders of generated media: made from prompts here, by training and by evaluation alike; read by all that judges."""
