"""Letters to sounds: a decoder with attention, on a dictionary of English."""
