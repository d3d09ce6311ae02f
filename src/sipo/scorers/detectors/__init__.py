"""Detectors for GenEval's judge: pictures and class names in, boxes by class out."""
