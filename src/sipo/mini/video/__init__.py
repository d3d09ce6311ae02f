"""The video miniature: clips of moving shapes, and the rules by which they are judged."""
