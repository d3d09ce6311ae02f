"""Human evaluation and preference collection."""
