"""The flow miniature: a FLUX pipeline in small that draws the still world."""
