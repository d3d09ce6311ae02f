"""Moments of media and embeddings of prompts, encoded once (`encode`) and fetched pair by pair (`read`)."""
