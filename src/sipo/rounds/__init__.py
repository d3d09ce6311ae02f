"""Online rounds: sample with the current policy, score, make pairs, train on them, and again."""
