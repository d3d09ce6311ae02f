"""Wording, pictures and templates of the HTML pages."""
