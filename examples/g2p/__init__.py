"""Letters to sounds: a decoder with attention, trained on an English dictionary."""
