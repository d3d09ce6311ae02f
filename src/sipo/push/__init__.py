"""`sipo push`: a run's weights, card, settings, metrics, report and pictures on the Hugging Face hub."""
