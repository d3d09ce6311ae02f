"""A VLM as a judge, asked over an OpenAI-compatible endpoint: scores of single samples, verdicts on two."""
