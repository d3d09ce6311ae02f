"""Pictures and videos: decoding, cropping, encoding."""
