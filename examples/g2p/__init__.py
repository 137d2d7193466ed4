"""Letters to sounds: a trained network of the package g2p_en, fine-tuned."""
