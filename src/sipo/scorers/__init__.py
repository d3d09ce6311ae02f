"""Reward models, one a file: pictures (or videos' frames) and prompts in, one number each out."""
