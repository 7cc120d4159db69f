"""From text to token ids and back, and the trainers that build a vocabulary."""
