"""The Hugging Face hub: addresses of what lies there, downloads into its own cache, and what it says when it refuses."""
