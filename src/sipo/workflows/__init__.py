"""What several commands share and no lower package may hold: each joins packages that do not import each other."""
