"""`sipo data profile`: what pairs are like before a training: how the base sees them, repeats, leaks, balance, agreement."""
